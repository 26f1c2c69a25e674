"""One image of each group of duplicates in a manifest, without images of evaluation sets, as a subset file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8, UInt64

from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.clustering.rows import unit_rows
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.duplicates import (
    SIDE,
    Candidates,
    Keep,
    Pairs,
    Thumbnails,
    candidates,
    compared,
    components,
    equal_pairs,
    feature_pairs,
    kept_rows,
    mirrored,
)
from ssl_lightning.data.hashing import OK, difference_hash
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.schema import batches_of, digests_of, pc
from ssl_lightning.data.manifest.subset_file import SubsetFile
from ssl_lightning.data.manifest.thumbnails import ThumbnailParts, thumbnail
from ssl_lightning.engines import Engine, Job
from ssl_lightning.errors import DataError
from ssl_lightning.progress import progress

_AT_ONCE = 256
"""Images that are decoded at a time."""
COPY, NEAR = "copy", "near copy"
"""Reasons: equal bytes as a kept image, and another near-equal image of the group."""


@dataclass(frozen=True)
class Rules:
    """What counts as a duplicate, and which one of a group is kept.

    Attributes:
        bits: Largest number of bits in which perceptual hashes of candidates differ.
        difference: Largest root mean square difference of thumbnails, in gray levels.
        similarity: Least cosine similarity of features, where there are some.
        mirrored: Whether an image and its mirror image are duplicates.
        keep: The image of a group that is kept.
    """

    bits: int
    difference: float
    similarity: float
    mirrored: bool
    keep: Keep


@dataclass(frozen=True, eq=False)
class _Columns:
    """Columns of the usable rows of a manifest in the order of their ids."""

    ids: Int64[np.ndarray, "N"]
    digests: UInt8[np.ndarray, "N 32"]
    hashes: UInt64[np.ndarray, "N"]
    pixels: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]


@dataclass(frozen=True, eq=False)
class _Search:
    """What may be near-equal: rows of the manifest, followed by those of evaluation sets.

    Attributes:
        columns: Of the rows of the manifest.
        sets: Readable images of each evaluation set.
        owners: Name of the evaluation set of each row of one.
        count: Number of rows of both.
        found: Candidates; with mirror images, row r + count is the mirror image of row r.
    """

    columns: _Columns
    sets: list[ImageDataset]
    owners: list[str]
    count: int
    found: Candidates

    @cached_property
    def own(self) -> Int64[np.ndarray, "n"]:
        """Rows of the manifest among the candidates, ascending."""
        rows = np.unique(self.found.rows % self.count)
        return rows[rows < len(self.columns.ids)]

    def thumbnails(self, own: UInt8[np.ndarray, "n values"], rows: Int64[np.ndarray, "m"]) -> UInt8[np.ndarray, "m v"]:
        """Thumbnails of candidates.

        Args:
            own: Those of `own`.
            rows: Rows of the manifest, of evaluation sets, or of mirror images.
        """
        places = rows % self.count
        values = np.empty((len(rows), SIDE * SIDE * 3), dtype=np.uint8)
        is_own = places < len(self.columns.ids)
        values[is_own] = own[np.searchsorted(self.own, places[is_own])]
        values[~is_own] = thumbnails_of(self.sets, places[~is_own] - len(self.columns.ids))
        flipped = rows >= self.count
        images = values[flipped].reshape(-1, SIDE, SIDE, 3)[:, :, ::-1]
        values[flipped] = images.reshape(len(images), SIDE * SIDE * 3)
        return values


def make_parts(
    manifest: Path,
    rules: Rules,
    parts: ThumbnailParts,
    engine: Engine,
    job: Job,
    against: dict[str, ImageDataset] | None = None,
) -> tuple[int, int]:
    """Compute the thumbnails of one of several jobs, which `deduplicate` then reads.

    Args:
        manifest: The file, or a folder of them.
        rules: What counts as a duplicate.
        parts: Thumbnails of its images.
        engine: Reads and decodes these images.
        job: The job.
        against: Images of evaluation sets by name.

    Returns:
        Number of parts of all jobs, and of those that were made now.
    """
    return parts.make(_search(manifest, rules, against or {}).own, engine, job)


def deduplicate(
    manifest: Path,
    images: ManifestImages,
    rules: Rules,
    thumbnails: Thumbnails,
    features: FeatureFile | None = None,
    against: dict[str, ImageDataset] | None = None,
) -> SubsetFile:
    """Find the groups of duplicates among the usable rows of a manifest, and the row of each that is kept.

    Args:
        manifest: The file, or a folder of them.
        images: Its images.
        rules: What counts as a duplicate.
        thumbnails: Gives those of some of these images, one row of values each.
        features: Features of these images, which find further pairs.
        against: Images of evaluation sets by name; no row of a group with one of these is kept.

    Raises:
        DataError: If the manifest has no perceptual hashes, an image cannot be read, or features are of other images.
    """
    search = _search(manifest, rules, against or {})
    columns, count = search.columns, len(search.columns.ids)
    of_candidates = partial(search.thumbnails, thumbnails(search.own))
    pairs = [equal_pairs(np.ascontiguousarray(columns.digests).view("S32").ravel())]
    pairs.append(compared(search.found, of_candidates, rules.difference) % search.count)
    if features is not None:
        pairs.append(_by_features(features, images, rules.similarity))
    groups = components(search.count, np.concatenate(pairs))
    in_sets: dict[int, str] = {}
    for group, name in zip(groups[count:].tolist(), search.owners, strict=True):
        in_sets.setdefault(group, name)
    own = groups[:count]
    kept = kept_rows(own, columns.pixels, columns.sizes, rules.keep)
    kept &= ~np.isin(own, list(in_sets))
    return SubsetFile(columns.ids, kept, _renumbered(own), _reasons(columns, own, kept, in_sets))


def _search(manifest: Path, rules: Rules, sets: dict[str, ImageDataset]) -> _Search:
    columns = _columns_of(manifest)
    hashes, owners, readers = [columns.hashes], [], []
    for name, dataset in sets.items():
        readable, found = _hashes_of(dataset, name)
        owners += [name] * len(found)
        hashes.append(found)
        readers.append(readable)
    whole = np.concatenate(hashes)
    searched = np.concatenate([whole, mirrored(whole)]) if rules.mirrored else whole
    return _Search(columns, readers, owners, len(whole), candidates(searched, rules.bits))


def _columns_of(manifest: Path) -> _Columns:
    parts = []
    for table in batches_of(manifest, ["sample_id", "sha256", "phash", "width", "height", "size", "status"]):
        usable = table.filter(pc.equal(table["status"], OK))
        if usable["phash"].null_count:
            raise DataError(f"found usable rows of {manifest} without a perceptual hash; build the manifest again")
        pixels = usable["width"].to_numpy().astype(np.int64) * usable["height"].to_numpy()
        rest = (usable["phash"].to_numpy(), pixels, usable["size"].to_numpy())
        parts.append((usable["sample_id"].to_numpy(), digests_of(usable["sha256"]), *rest))
    columns = [np.concatenate(each) for each in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return _Columns(*(column[order] for column in columns))


def _hashes_of(dataset: ImageDataset, name: str) -> tuple[ImageDataset, UInt64[np.ndarray, "n"]]:
    """The readable images of a dataset, and the perceptual hash of each."""
    found, readable = [], []
    for rows in progress(torch.arange(len(dataset)).split(_AT_ONCE), f"hashing {name}", "batches"):
        images, valid = dataset.read(rows)
        readable.append(rows[valid])
        found += [difference_hash(image) for image, is_valid in zip(images, valid.tolist(), strict=True) if is_valid]
    return dataset.select(torch.cat(readable)), np.array(found, dtype=np.uint64)


def thumbnails_of(datasets: Sequence[ImageDataset], rows: Int64[np.ndarray, "n"]) -> UInt8[np.ndarray, "n values"]:
    """Thumbnails of rows of several datasets, one after the other.

    Args:
        datasets: The images.
        rows: Counted over all datasets.
    """
    starts = np.cumsum([0, *(len(dataset) for dataset in datasets)])
    values = np.zeros((len(rows), SIDE * SIDE * 3), dtype=np.uint8)
    for dataset, start, end in zip(datasets, starts, starts[1:], strict=False):
        places = np.flatnonzero((rows >= start) & (rows < end))
        batches = np.array_split(places, -(-len(places) // _AT_ONCE)) if len(places) else []
        for some in progress(batches, "comparing candidates of evaluation sets", "batches"):
            images, _ = dataset.read(torch.from_numpy(rows[some] - start))
            values[some] = [thumbnail(image.numpy()) for image in images]
    return values


def _by_features(features: FeatureFile, images: ManifestImages, similarity: float) -> Pairs:
    images.reject_other_features(features)
    units: Float32[np.ndarray, "n D"] = unit_rows(features.features.float()).numpy()
    rows = features.rows.numpy()
    return rows[feature_pairs(np.ascontiguousarray(units), similarity)]


def _renumbered(groups: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    """Groups numbered from 0 in the order of their first rows."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]


def _reasons(
    columns: _Columns, groups: Int64[np.ndarray, "N"], kept: Bool[np.ndarray, "N"], in_sets: dict[int, str]
) -> list[str]:
    of_kept = {int(group): columns.digests[row].tobytes() for row, group in enumerate(groups) if kept[row]}
    found = []
    for row, group in enumerate(groups.tolist()):
        if kept[row]:
            found.append("")
        elif group in in_sets:
            found.append(f"in {in_sets[group]}")
        else:
            found.append(COPY if columns.digests[row].tobytes() == of_kept[group] else NEAR)
    return found


def in_words(found: SubsetFile) -> list[str]:
    """Counts by reason, and the sizes of groups."""
    sizes = np.bincount(found.groups)
    several = sizes[sizes > 1]
    counts = found.counts()
    left = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items())) or "no duplicate"
    lines = [f"{len(found.ids):,} images, {int(found.kept.sum()):,} kept: {left}"]
    if len(several):
        lines.append(f"{len(several):,} groups of duplicates, the largest of {several.max():,} images")
    return lines
