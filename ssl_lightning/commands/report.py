"""report: the page of a run, written again from its files, and as one file."""

import logging
from pathlib import Path

from ssl_lightning.callbacks.cluster_sections import cluster_sections, saved_clusters
from ssl_lightning.callbacks.write_report import WriteReport
from ssl_lightning.clustering.saved import cluster_files
from ssl_lightning.commands.stage_images import images_of
from ssl_lightning.errors import DataError, UsageError, one_line
from ssl_lightning.files import reject_unwritable, write_text
from ssl_lightning.report.page import Section
from ssl_lightning.report.single_file import single_file
from ssl_lightning.runs.summary import is_run

log = logging.getLogger(__name__)


def main(run: str, out: str | None = None, images: bool = True) -> None:
    """Write the page of a run, also of one that is training, from its files.

    The page of a finished run stays as it is.

    Args:
        run: Folder of the run, such as runs/a.
        out: A file, such as a.html, for the page with all its images in one file.
        images: For a run that has not finished: also its saved clusters, which needs the data.

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
        WriteReport(str(page.parent)).write_from_files(_clusters_of(folder) if images else ())
    if out is None:
        print(f"page: {page}")
        return
    write_text(Path(out), single_file(page))
    print(f"page in one file: {out}, {Path(out).stat().st_size / 1e6:.1f} MB")


def _clusters_of(run: Path) -> list[Section]:
    """The saved clusters of a run; none, which is logged, where its images are no longer what or where they were."""
    saved = saved_clusters(run)
    if not saved:
        return []
    metadata = saved[-1][1]
    try:
        data = images_of(metadata, str(cluster_files(run)[-1]), None)
        data.setup("predict")
        if metadata.get("data") != data.fingerprint_as(metadata.get("data")):
            raise DataError("they have changed since")
    except (DataError, UsageError, OSError) as error:
        log.warning("the page is without clusters: found no images of %s (%s)", run, one_line(str(error)))
        return []
    return cluster_sections(run / "report", saved, None, 0, data.training, data.labels)
