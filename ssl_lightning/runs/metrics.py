"""metrics.csv: one continuous table of a run, also over resumes."""

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
"""What the names of columns that measure time have in common."""


class MetricsTable(Logger):
    """One row a step, a column a metric; rows of one step are merged, and a row is on disk when its step is over.

    Where the disk is full, rows wait in memory until there is room; `flush` tells whether there is. Lightning's
    `CSVLogger` deletes an existing file and keeps rows in memory until it is flushed.

    Args:
        path: The csv file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: list[str] = list(FIRST_COLUMNS)
        self._open_row: dict[str, Any] = {}
        self._row_start = 0
        self._waiting: list[dict[str, Any]] = []
        """Rows before the open one that the disk had no room for."""
        self._is_late = False
        """Whether the last write failed."""
        self._closed = Tally()
        """Of the rows before the open one."""

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Runs have names, not versions."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run's folder holds its configuration; nothing is written here."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write a row, or add to the row that was written last if it is of the same step."""
        step = 0 if step is None else int(step)
        if self._open_row.get("step") != step:
            self._begin(step)
        self._open_row |= {name: _plain(value) for name, value in metrics.items()}
        try:
            self._write()
        except OSError as error:
            if not self._is_late:
                log.warning("could not write %s (%s); its rows wait for room on the disk", self.path, error.strerror)
            self._is_late = True

    def flush(self) -> None:
        """Write the rows that are waiting; a checkpoint that is written without them would leave them out for ever.

        Raises:
            OSError: There is still no room.
        """
        if self._is_late:
            self._write()

    def tally(self, step: int) -> dict[str, Any]:
        """How many rows before a step the table has, and a digest of them: a checkpoint keeps it.

        Args:
            step: The present one; what belongs to it is still being written.
        """
        done = self._closed
        return (done.and_row(self._open_row) if self._open_row.get("step", step) < step else done).noted()

    def _begin(self, step: int) -> None:
        """A new row; the last one is on disk, or waits."""
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
        """Drop the rows after a step: the resumed run writes them again. Takes up the columns of the table.

        Rows before it that are missing or changed since the checkpoint was written are logged.

        Args:
            step: Of the checkpoint.
            tally: What the checkpoint has noted of the table; None in those of earlier versions.

        Raises:
            DataError: If the table cannot be read or written.
        """
        header, rows = read_table(self.path) if self.path.exists() else ([], [])
        kept: list[dict[str, Any]] = [row for row in rows if int(row["step"]) <= step]
        before = [row for row in kept if int(row["step"]) < step]
        self._closed = Tally()
        for row in before:
            self._closed = self._closed.and_row(row)
        self._log_losses(step, tally)
        if not self.path.exists():
            return
        self._columns = header or list(FIRST_COLUMNS)
        self._replace(kept)
        if kept and int(kept[-1]["step"]) == step:  # what belongs to this step and is still to come is merged in
            # left in the file, not taken out and written again: a kill between the two would lose it for ever
            self._open_row = {name: value for name, value in kept[-1].items() if value != ""} | {"step": step}
            self._row_start = self.path.stat().st_size - len(self._text(kept[-1:], header=False))

    def _log_losses(self, step: int, tally: Any) -> None:
        """One line where the table is not the one that the checkpoint noted."""
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
        """Rewrite the table with more columns; rare, since all metrics show up early.

        In one write: a kill between two would lose what a checkpoint of the last step takes for written.
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
        """Write a row as the last one; where the next one begins."""
        with self.path.open("r+", newline="", encoding="utf-8") as file:
            file.seek(self._row_start)
            csv.DictWriter(file, self._columns, restval="").writerow(row)
            file.truncate()
            return file.tell()


@dataclass(frozen=True)
class Tally:
    """How many rows there are, and a digest of all of them that is made row by row."""

    rows: int = 0
    digest: str = ""

    def and_row(self, row: dict[str, Any]) -> "Tally":
        """With one more. Columns that measure time differ from run to run, and empty cells come with new columns."""
        cells = {name: str(value) for name, value in row.items() if value != "" and TIMED not in name}
        described = json.dumps([self.digest, cells], sort_keys=True)
        return Tally(self.rows + 1, hashlib.sha256(described.encode()).hexdigest())

    def noted(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics table that are whole, see `read_table`.

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
