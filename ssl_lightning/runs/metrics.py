"""metrics.csv: one continuous table of a run, across resumes."""

import csv
import hashlib
import io
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ssl_lightning.errors import DataError
from ssl_lightning.files import write_atomically
from ssl_lightning.report.metrics_file import read_table

log = logging.getLogger(__name__)
FIRST_COLUMNS = ("step", "epoch")
TIMED = "second"
"""Pattern of the names of columns that measure time."""


class MetricsTable(Logger):
    """A CSV file with one row per step and one column per metric. A row is on disk at the end of its step.

    Rows of one step are merged. If the disk is full, rows wait in memory. Lightning's `CSVLogger` deletes an existing
    file and keeps rows in memory until it is flushed.

    Args:
        path: The CSV file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: list[str] = list(FIRST_COLUMNS)
        self._open_row: dict[str, Any] = {}
        self._row_start = 0
        self._waiting: list[dict[str, Any]] = []
        """Rows before the current one that could not be written."""
        self._is_late = False
        """Whether the last write failed."""
        self._closed = TableDigest()
        """The digest of the rows before the current one."""

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Always empty: runs have names, not versions."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the folder of the run contains its configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write a row, or merge the metrics into the last row if it is of the same step."""
        step = 0 if step is None else int(step)
        if self._open_row.get("step") != step:
            self._begin(step)
        self._open_row |= {name: _plain(value) for name, value in metrics.items()}
        try:
            self._write()
        except OSError as error:
            if not self._is_late:
                log.warning("could not write %s (%s); rows wait in memory for disk space", self.path, error.strerror)
            self._is_late = True

    def flush(self) -> None:
        """Write the waiting rows; without them a checkpoint would lose them.

        Raises:
            OSError: If they still cannot be written.
        """
        if self._is_late:
            self._write()

    def tally(self, step: int) -> dict[str, Any]:
        """The number of rows before a step and their digest, for a checkpoint.

        Args:
            step: The current step, which is still being written.
        """
        done = self._closed
        return (done.and_row(self._open_row) if self._open_row.get("step", step) < step else done).noted()

    def _begin(self, step: int) -> None:
        """Start a new row; the last one is on disk, or waits."""
        if self._open_row:
            self._closed = self._closed.and_row(self._open_row)
        if self._is_late:
            self._waiting.append(self._open_row)
        else:
            self._row_start = self.path.stat().st_size if self.path.exists() else 0
        self._open_row = {"step": step}

    def _write(self) -> None:
        rows = [*self._waiting, self._open_row]
        new = sorted({name for row in rows for name in row if name not in self._columns})
        if new or not self.path.exists():
            self._widen(new, rows)
        else:
            for row in self._waiting:
                self._row_start = self._write_row(row)
            self._write_row(self._open_row)
        self._waiting, self._is_late = [], False

    @rank_zero_only
    def cut_after(self, step: int, tally: Any = None) -> None:
        """Remove the rows after a step, which the resumed run writes again, and read the columns of the table.

        Rows before it that are missing or changed since the checkpoint are logged.

        Args:
            step: The step of the checkpoint.
            tally: The recorded number and digest of rows; None in checkpoints of earlier versions.

        Raises:
            DataError: If the table cannot be read or written.
        """
        header, rows = read_table(self.path) if self.path.exists() else ([], [])
        kept: list[dict[str, Any]] = [row for row in rows if int(row["step"]) <= step]
        before = [row for row in kept if int(row["step"]) < step]
        self._closed = TableDigest()
        for row in before:
            self._closed = self._closed.and_row(row)
        self._log_losses(step, tally)
        if not self.path.exists():
            return
        self._columns = header or list(FIRST_COLUMNS)
        self._replace(kept)
        if kept and int(kept[-1]["step"]) == step:  # later metrics of this step are merged into it
            # left in the file: removing and rewriting it could lose it in a kill
            self._open_row = {name: value for name, value in kept[-1].items() if value != ""} | {"step": step}
            self._row_start = self.path.stat().st_size - len(self._text(kept[-1:], header=False))

    def _log_losses(self, step: int, tally: Any) -> None:
        """Log if the table is not the one of the checkpoint."""
        found = self._closed.noted()
        if not isinstance(tally, dict) or tally == found:
            return
        rows = tally.get("rows")
        if isinstance(rows, int) and rows > found["rows"]:
            told = f"{rows - found['rows']} of {rows} rows before step {step} are missing or damaged"
        else:
            told = f"rows before step {step} were changed or added since the checkpoint was written"
        log.warning("found %s, in which %s; the run resumes with what is there", self.path, told)

    def _widen(self, new: list[str], last: list[dict[str, Any]]) -> None:
        """Rewrite the table with more columns, which is rare.

        It is one write: a kill between two writes would lose rows that a checkpoint of the last step counts.
        """
        rows: list[dict[str, Any]] = list(read_table(self.path)[1]) if self.path.exists() else []
        known = self._columns
        self._columns = known + new
        try:
            self._replace([*(row for row in rows if int(row["step"]) < int(last[0]["step"])), *last])
        except OSError:
            self._columns = known
            raise
        self._row_start = self.path.stat().st_size - len(self._text(last[-1:], header=False))

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda file: file.write(self._text(rows)))

    def _text(self, rows: list[dict[str, Any]], header: bool = True) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    def _write_row(self, row: dict[str, Any]) -> int:
        """Write the last row; return the position after it."""
        with self.path.open("r+", newline="", encoding="utf-8") as file:
            file.seek(self._row_start)
            csv.DictWriter(file, self._columns, restval="").writerow(row)
            file.truncate()
            return file.tell()


@dataclass(frozen=True)
class TableDigest:
    """The number of rows, and a digest of all of them that is updated row by row."""

    rows: int = 0
    digest: str = ""

    def and_row(self, row: dict[str, Any]) -> "TableDigest":
        """The digest with one more row. Columns of times and empty cells do not count."""
        cells = {name: str(value) for name, value in row.items() if value != "" and TIMED not in name}
        described = json.dumps([self.digest, cells], sort_keys=True)
        return TableDigest(self.rows + 1, hashlib.sha256(described.encode()).hexdigest())

    def noted(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The valid rows of a metrics table, see `read_table`.

    Raises:
        DataError: If there is no such file.
    """
    try:
        return list(read_table(Path(path))[1])
    except OSError as error:
        raise DataError(f"found no {path} ({error.strerror}); expected the folder of a run") from error


def _plain(value: Any) -> float | int:
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
