"""The rows of a metrics.csv, whatever has become of the file: a damaged row is left out and counted, never an error."""

import csv
import io
import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)
STEP, EPOCH = "step", "epoch"
LONGEST = 1 << 28
"""Bytes of a table that are read: rows of a run of years."""
_WHOLE = re.compile(r"[0-9]{1,15}")


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a table, and those of its rows that are whole: a step and numbers, a cell a column.

    A last line that a kill cut off is left out; other damaged rows are too, which is logged. A header that is none
    (without a step, or with a name twice) makes a table without columns and rows.

    Args:
        path: The file.

    Raises:
        OSError: If it is not there, or no file.
    """
    if path.exists() and not path.is_file():
        raise OSError(0, "no regular file", str(path))
    with path.open("rb") as file:
        content = file.read(LONGEST)
    lines = _lines(content.decode("utf-8", "replace"))
    if lines and not content.endswith(b"\n"):
        lines[-1] = None
    header = lines[0] if lines else None
    if header is None or STEP not in header or len(set(header)) != len(header):
        if content:
            log.warning("found %s without the header of a metrics table: it counts as empty", path)
        return [], []
    rows = [_row(line, header) for line in lines[1:]]
    damaged = sum(row is None for row in rows[:-1])
    if damaged:
        log.warning("found %d damaged rows in %s, which are left out", damaged, path)
    return header, [row for row in rows if row is not None]


def _lines(text: str) -> list[list[str] | None]:
    """The fields of every line, None for one that is no csv."""
    reader, lines = csv.reader(io.StringIO(text, newline="")), []
    while True:
        try:
            lines.append(next(reader))
        except StopIteration:
            return lines
        except csv.Error:
            lines.append(None)


def _row(line: list[str] | None, header: list[str]) -> dict[str, str] | None:
    """A row that is whole, else None."""
    if line is None or len(line) != len(header):
        return None
    row = dict(zip(header, line, strict=True))
    whole = _WHOLE.fullmatch(row[STEP]) and _WHOLE.fullmatch(row.get(EPOCH) or "0")
    return row if whole and all(not cell or _is_number(cell) for cell in line) else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
