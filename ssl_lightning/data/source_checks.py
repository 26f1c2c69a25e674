"""What a run reports about its sources, each line once, and the check of unreadable images."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ssl_lightning.contracts import SourceReport
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.unreadable import check_unreadable, unreadable_names
from ssl_lightning.errors import UsageError
from ssl_lightning.models.preprocessing import RGB
from ssl_lightning.processes import rank

log = logging.getLogger(__name__)
Named = tuple[str, ImageDataset]
"""Description and images of a set, such as "training images"."""


class SourceChecks:
    """Reports of the sources of a run and checks of their unreadable images.

    Args:
        max_unreadable: Largest fraction of unreadable images of a set.
    """

    def __init__(self, max_unreadable: float) -> None:
        self.max_unreadable = max_unreadable
        self._logged: set[str] = set()
        self._noted: dict[str, dict[str, list[str]]] = {}
        """Names of unreadable images by source and reason."""

    def report(self, datasets: Iterable[Named]) -> None:
        """Log what the sources hold, and check the images that are in memory.

        Raises:
            DataError: For more unreadable images of a set than allowed, or all of them.
        """
        datasets = list(datasets)
        for report in [report for _, dataset in datasets for report in dataset.reports()]:
            self._log(report.line(), logging.WARNING if report.skipped else logging.INFO)
        for name, dataset in datasets:
            check_unreadable(list(dataset.known_unreadable), dataset, len(dataset), self.max_unreadable, name)

    def note(self, rows: Sequence[int], dataset: ImageDataset, count: int, where: str) -> None:
        """Check the share of the rows that a pass could not read, and log them.

        Args:
            rows: Unreadable rows of all processes.
            dataset: The images.
            count: Number of rows of the pass.
            where: Description of the images.

        Raises:
            DataError: For a larger share of them than allowed, or all rows.
        """
        self.remember(rows, dataset)
        line = check_unreadable(sorted(set(rows)), dataset, count, self.max_unreadable, where)
        self._log(line, logging.WARNING)

    def remember(self, rows: Sequence[int], dataset: ImageDataset) -> None:
        """Keep the names of rows that a pass could not read for the reports."""
        if rows:
            self._noted[dataset.title] = unreadable_names(rows, dataset)

    def reports(self, datasets: Iterable[ImageDataset]) -> list[SourceReport]:
        """The reports of datasets with what passes could not read; each source once."""
        found: dict[str, SourceReport] = {}
        for report in [report for dataset in datasets for report in dataset.reports()]:
            noted = report.unreadable or self._noted.get(report.path, {})
            found.setdefault(report.path, replace(report, unreadable=noted))
        return list(found.values())

    def _log(self, line: str, level: int) -> None:
        """Log a line once on rank 0."""
        if line and line not in self._logged and rank() == 0:
            log.log(level, "%s", line)
        self._logged.add(line)


def check_normalization(mean: RGB, std: RGB) -> None:
    """Reject a mean or standard deviation that is none of pixels in 0..1.

    Raises:
        UsageError: If so.
    """
    suggestion = ": divide by 255" if max(*mean, *std) > 1 else ""
    if not all(0 <= value <= 1 for value in mean):
        raise UsageError(f"found data.mean={mean}; expected fractions 0..1{suggestion}")
    if not all(0 < value <= 1 for value in std):
        raise UsageError(f"found data.std={std}; expected three positive numbers, as fractions 0..1{suggestion}")
