"""data build: describe every image of a collection in a manifest, with permanent ids."""

from pathlib import Path

from ssl_lightning.data.intensity import IntensityWindow
from ssl_lightning.data.limits import DEFAULT_LIMITS, Limits
from ssl_lightning.data.manifest.build import BuildReport, build, in_words, merge_parts
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.engines import LOCAL, Job, cores, engine_named
from ssl_lightning.errors import UsageError
from ssl_lightning.files import reject_unwritable


def main(
    sources: tuple[str, ...] = (),
    out: str = "",
    workers: int | None = None,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    limits: Limits = DEFAULT_LIMITS,
    intensity_window: IntensityWindow = None,
    label: str | None = None,
    metadata: bool = False,
    part: str | None = None,
    merge: str | None = None,
    engine: str = LOCAL,
) -> None:
    """Write a manifest: where every image is, its SHA-256, perceptual hash, size and format, and whether it decodes.

    The same command again continues a build that was interrupted. A later build reads what is new or changed, keeps
    the ids of files that were added to, renamed or removed, and reports what vanished.

    Args:
        sources: Folders, tar files, or patterns of shards such as pool-*.tar; give all of them each time.
        out: The manifest to write, <name>.parquet. Its parts are kept in <name>.parquet.parts.
        workers: Number of processes; by default one for each core of the machine or cluster.
        include: Globs: only files that match one of them are images.
        exclude: Globs: files that match one of them are no images.
        limits: What decoding one image may cost; an image that exceeds it is quarantined.
        intensity_window: For gray images of more than 8 bits: the values [low, high] that become black and white, or
            minmax, or percentile.
        label: Labels for the column `label`: a column of a table or of metadata.csv, or files beside the images: cls,
            txt, json, or json:<key>. Training without labels does not read them.
        metadata: Record the .json files beside the images in the column `metadata`.
        part: i/n makes the parts of job i of n only, for schedulers; `--merge` then writes the manifest.
        merge: Folder of parts that jobs have made; sources are not given.
        engine: local for processes of this machine, ray for workers of Ray on it, or ray://<host>:<port> for a Ray
            cluster; its machines need the sources and the parts under the same paths.

    Raises:
        DataError: If a source is missing, or a shard is damaged.
        UsageError: For options that do not fit together.
    """
    if Path(out).suffix != ".parquet":
        raise UsageError(f"found out={out!r}; expected a name that ends in .parquet: give --out")
    if bool(sources) == bool(merge):
        raise UsageError(
            "found sources and --merge, or neither; expected `data build SOURCE... --out FILE`, or --merge"
        )
    if merge and part:
        raise UsageError("found --part and --merge; expected one: jobs make parts, and one command merges them")
    of_parts = {"label": label, "metadata": metadata, "include": include, "exclude": exclude}
    of_parts |= {"intensity_window": intensity_window, "limits": None if limits == DEFAULT_LIMITS else limits}
    if merge and (given := [name for name, value in of_parts.items() if value]):
        raise UsageError(f"found --{given[0]} and --merge; expected it with the jobs that make the parts: leave it out")
    chosen = engine_named(engine, workers)
    path = Path(out)
    if path.is_dir():
        raise UsageError(f"found out={out}, a folder; expected the name of a file that ends in .parquet")
    reject_unwritable(path.with_name(f".{path.name}.new"), "give --out in a folder that can be written")
    if merge:
        report = BuildReport(merge_parts(Path(merge), path))
    else:
        options = SourceOptions(limits, Selection(tuple(include), tuple(exclude)), intensity_window, label, metadata)
        report = build(sources, path, options, workers or cores(), Job.parsed(part) if part else None, chosen)
    print("\n".join(in_words(report, path)))
