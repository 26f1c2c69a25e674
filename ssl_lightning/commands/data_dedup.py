"""data dedup: keep one image of each group of duplicates, and none of an evaluation set."""

from pathlib import Path

from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.data.duplicates import BITS, DIFFERENCE, MOST_BITS, Keep
from ssl_lightning.data.manifest.dedup import Rules, deduplicate, in_words, make_parts
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.schema import reject_manifest
from ssl_lightning.data.manifest.thumbnails import ThumbnailParts
from ssl_lightning.data.options import DEFAULT_OPTIONS
from ssl_lightning.data.probe_sets import open_split
from ssl_lightning.engines import LOCAL, Job, engine_named
from ssl_lightning.errors import UsageError
from ssl_lightning.files import reject_unwritable
from ssl_lightning.words import counted


def main(
    manifest: str = "",
    out: str = "",
    against: tuple[str, ...] = (),
    bits: int = BITS,
    difference: float = DIFFERENCE,
    features: str | None = None,
    similarity: float = 0.95,
    mirrored: bool = False,
    keep: Keep = "largest",
    workers: int | None = None,
    part: str | None = None,
    engine: str = LOCAL,
) -> None:
    """Write a subset file that keeps one image of each group of duplicates. Images are not changed.

    Duplicates are files of equal bytes, and images with near-equal perceptual hashes and thumbnails: other sizes and
    other compression. With features, images with similar ones are duplicates too, such as crops.

    Args:
        manifest: A file of `data build`, or a folder of such files.
        out: The subset file to write, <name>.parquet; --data.subset.path takes it.
        against: Evaluation sets as <folder or tar file>/<split>; images that are in one of them are not kept.
        bits: Largest number of bits, of 64, in which perceptual hashes of candidates differ.
        difference: Largest root mean square difference of thumbnails of 16 x 16 pixels, in gray levels of 255.
        features: A file of `ssl-lightning embed` on this manifest.
        similarity: Least cosine similarity of the features of duplicates.
        mirrored: Whether an image and its mirror image are duplicates.
        keep: largest (most pixels), quality (most bytes per pixel), or first (lowest id).
        workers: Number of processes; by default one for each core of the machine or cluster.
        part: i/n decodes the candidates of job i of n only, for schedulers; the command without it writes the file.
        engine: local for processes of this machine, ray for workers of Ray on it, or ray://<host>:<port> for a Ray
            cluster; its machines need the manifest, its images and `out` under the same paths.

    Raises:
        DataError: If a file is missing or damaged.
        UsageError: For values out of range, or if `out` cannot be written.
    """
    if not manifest:
        raise UsageError("found no manifest; expected `ssl-lightning data dedup FILE --out SUBSET.parquet`")
    if Path(out).suffix != ".parquet" or Path(out) == Path(manifest):
        raise UsageError(f"found out={out!r}; expected another name that ends in .parquet: give --out")
    if not 0 <= bits <= MOST_BITS or difference < 0 or not 0 < similarity <= 1:
        raise UsageError(
            f"found bits={bits}, difference={difference:g}, similarity={similarity:g}; expected 0 to {MOST_BITS} bits, "
            "a difference of at least 0, and a cosine above 0 and at most 1"
        )
    reject_manifest(Path(out), "out")
    reject_unwritable(Path(out), "give another file to write")
    job, chosen = Job.parsed(part) if part else None, engine_named(engine, workers)
    images = ManifestImages(Path(manifest), DEFAULT_OPTIONS)
    sets = {name: open_split(name, DEFAULT_OPTIONS) for name in against}
    rules = Rules(bits, difference, similarity, mirrored, keep)
    parts = ThumbnailParts(Path(manifest), images.fingerprint, Path(f"{out}.parts"))
    if job is not None:
        total, made = make_parts(Path(manifest), rules, parts, chosen, job, sets)
        print(f"{counted(total, 'part')}, {made} made now; next, after all jobs: the same command without --part")
        return
    given = FeatureFile.load(features) if features else None
    found = deduplicate(Path(manifest), images, rules, lambda rows: parts.of(rows, chosen), given, sets)
    found.write(Path(out), images.fingerprint)
    parts.remove()
    print("\n".join(in_words(found)))
    print(f"next: ssl-lightning fit ... --data.path {manifest} --data.subset.path {out}")
