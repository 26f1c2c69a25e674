"""data check: compare a manifest with its images."""

from pathlib import Path

from ssl_lightning.data.manifest.check import KINDS, Comparison, check
from ssl_lightning.data.manifest.schema import reject_manifest
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.files import reject_unwritable, write_atomically

_NAMED = 3


def main(manifest: str = "", full: bool = False, details: str | None = None) -> None:
    """Compare a manifest with its images: files that are missing, changed, moved or new.

    The exit code is 0 if every file of the manifest is in its place and unchanged, whether or not there are new ones.

    Args:
        manifest: A file of `data build`, or a folder of such files.
        full: Read every file and compare its SHA-256; without it, names, positions and sizes are compared, and the
            content of files with another time of change.
        details: A file to write, <name>.parquet, with a row for each difference.

    Raises:
        DataError: If files are missing, changed or moved, or the manifest is damaged.
        UsageError: If `details` cannot be written.
    """
    if not manifest:
        raise UsageError("found no manifest; expected `ssl-lightning data check FILE`")
    if details is not None:
        if Path(details).suffix != ".parquet":
            raise UsageError(f"found details={details}; expected a name that ends in .parquet")
        reject_manifest(Path(details), "details")
        reject_unwritable(Path(details), "give another file to write")
    found = check(Path(manifest), full)
    if details is not None:
        _write(Path(details), found)
    for kind in KINDS:
        if named := found.of(kind):
            first = ", ".join(f"{each.path}{f' ({each.found})' if each.found else ''}" for each in named[:_NAMED])
            more = ", ..." if len(named) > _NAMED else ""
            print(" ".join(f"{len(named):,} {kind}: {first}{more}".split()))
    wrong = [f"{len(found.of(kind)):,} {kind}" for kind in KINDS[:-1] if found.of(kind)]
    if wrong:
        raise DataError(f"found {', '.join(wrong)} of {found.compared:,} files of {manifest}; build the manifest again")
    how = "with equal content" if full else "in their places with equal sizes"
    print(f"{manifest}: {found.compared:,} files {how}")


def _write(path: Path, found: Comparison) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names = ("kind", "sample_id", "path", "found")
    kinds = (pa.string(), pa.int64(), pa.string(), pa.string())
    columns = {
        name: pa.array([each[place] for each in found.differences], kind)
        for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
    write_atomically(path, lambda file: parquet.write_table(pa.table(columns), file))
