"""data curate: a balanced subset of a collection, from clusters of its features."""

from pathlib import Path
from typing import Literal

import numpy as np

from ssl_lightning.clustering import HierarchicalKMeans
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.clustering.tree_sampling import Choice
from ssl_lightning.data import Subset
from ssl_lightning.data.manifest.curate import Method, Plan, curate, in_words
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.schema import reject_manifest
from ssl_lightning.data.options import DEFAULT_OPTIONS
from ssl_lightning.errors import UsageError
from ssl_lightning.files import reject_unwritable

ROUNDS = 10
"""Rounds of resampling of each level, as in the paper."""


def main(
    manifest: str = "",
    features: str = "",
    out: str = "",
    size: int = 0,
    method: Method = "hierarchical",
    num_clusters: int = 0,
    levels: tuple[int, ...] = (),
    metric: Literal["l2", "cosine"] = "cosine",
    rounds: int | None = None,
    kept: tuple[int, ...] | None = None,
    choice: Choice | None = None,
    subset: str | None = None,
    seed: int = 0,
) -> None:
    """Write a subset file with the same number of images of each cluster, as far as the cluster has them.

    Hierarchical k-means with resampling, and sampling of its tree from the top down (Vo et al. 2024). Flat clusters and
    uniform sampling are the baselines.

    Args:
        manifest: A file of `data build`, or a folder of such files.
        features: A file of `ssl-lightning embed` on this manifest.
        out: The subset file to write, <name>.parquet; --data.subset.path takes it.
        size: Images of the subset.
        method: hierarchical, flat, or uniform.
        num_clusters: Clusters of the last level, or of the only one of flat; by default a level for about 20 images of
            the subset each.
        levels: Clusters of the levels below, from the images up; by default one level of five times as many, at most a
            fourth of the images.
        metric: l2 or cosine.
        rounds: Rounds of resampling of each level of hierarchical, by default 10; 0 for none. flat has none.
        kept: Rows of each cluster in a round, for each level and the last one; by default half the mean size.
        choice: The images nearest to the centroid of their cluster (closest, the default), or any (random).
        subset: An earlier subset file, such as that of `data dedup`: only the images that it keeps are sampled.
        seed: Of all random choices.

    Raises:
        DataError: If a file is missing, damaged, or of other images.
        UsageError: For values out of range, or if `out` cannot be written.
    """
    if not manifest or not features:
        raise UsageError(
            "found no manifest or no features; expected `ssl-lightning data curate FILE --features FEATURES --out "
            "SUBSET.parquet --size N`"
        )
    if Path(out).suffix != ".parquet" or Path(out) in (Path(manifest), Path(subset or "")):
        raise UsageError(f"found out={out!r}; expected another name that ends in .parquet: give --out")
    if size < 1:
        raise UsageError(f"found a subset of {size} images; expected at least 1: give --size")
    unused = {"levels": levels, "rounds": rounds, "kept": kept} if method != "hierarchical" else {}
    unused |= {"num_clusters": num_clusters, "choice": choice} if method == "uniform" else {}
    if given := [name for name, value in unused.items() if value not in (None, (), 0)]:
        raise UsageError(f"found --{given[0]} with --method {method}, which does not use it; leave it out")
    reject_manifest(Path(out), "out")
    reject_unwritable(Path(out), "give another file to write")
    images = ManifestImages(Path(manifest), DEFAULT_OPTIONS)
    held = FeatureFile.load(features)
    allowed = None
    if subset is not None:
        allowed = np.isin(images.sample_ids.numpy(), Subset(subset).of(images).sample_ids.numpy())
    last = num_clusters or max(2, size // 20)
    below = min(5 * last, len(held.rows) // 4)
    default = (below,) if below > last else ()
    if method == "hierarchical":
        clusterer = HierarchicalKMeans(
            tuple(levels) or default, metric, rounds=ROUNDS if rounds is None else rounds, kept=kept
        )
    else:
        clusterer = HierarchicalKMeans((), metric, rounds=0)
    found = curate(images, held, Plan(size, method, last, clusterer, choice or "closest", seed), allowed)
    found.write(Path(out), images.fingerprint)
    print("\n".join(in_words(found, last)))
    print(f"next: ssl-lightning fit ... --data.path {manifest} --data.subset.path {out}")
