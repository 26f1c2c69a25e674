"""report: the page of a run, written again from its files, and as one file."""

from pathlib import Path

from ssl_lightning.callbacks.write_report import WriteReport
from ssl_lightning.errors import DataError
from ssl_lightning.files import reject_unwritable, write_text
from ssl_lightning.report.single_file import single_file
from ssl_lightning.runs.summary import is_run


def main(run: str, out: str | None = None) -> None:
    """Write the page of a run, also of one that is training, from its files alone.

    The page of a finished run has images of its clusters, which need the data, and stays as it is.

    Args:
        run: Folder of the run, such as runs/a.
        out: A file, such as a.html, for the page with all its images in one file.

    Raises:
        DataError: If it is no folder of a run.
        UsageError: If `out` cannot be written.
    """
    folder = Path(run)
    if not is_run(folder):
        raise DataError(f"found {run}, which is no folder of a run; expected one with run.json and metrics.csv")
    page = folder / "report" / "index.html"
    if out is not None:
        reject_unwritable(Path(out), "give --out")
    if not (page.is_file() and (folder / "done.json").is_file()):
        reject_unwritable(page, "copy the run to another folder")
        WriteReport(str(page.parent)).write_from_files()
    if out is None:
        print(f"page: {page}")
        return
    write_text(Path(out), single_file(page))
    print(f"page in one file: {out}, {Path(out).stat().st_size / 1e6:.1f} MB")
