"""Reader of metrics.csv; damaged rows are left out and counted."""

import csv
import io
import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)
STEP, EPOCH = "step", "epoch"
LONGEST = 1 << 28
"""Largest number of bytes that are read; enough for a run of years."""
_WHOLE = re.compile(r"[0-9]{1,15}")


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns of a table and its valid rows: rows with a step and one number per column.

    An incomplete last line, left by a killed process, is skipped. Other damaged rows are skipped and logged. A table
    without a valid header (no step, or a repeated name) counts as empty.

    Args:
        path: The file.

    Raises:
        OSError: If it does not exist or is not a file.
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
    """The fields of every line, None for a line that is not valid CSV."""
    reader, lines = csv.reader(io.StringIO(text, newline="")), []
    while True:
        try:
            lines.append(next(reader))
        except StopIteration:
            return lines
        except csv.Error:
            lines.append(None)


def _row(line: list[str] | None, header: list[str]) -> dict[str, str] | None:
    """A valid row, else None."""
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
