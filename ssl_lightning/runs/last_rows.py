"""The last rows of metrics.csv before a step, which an external logger that was killed may have lost."""

from pathlib import Path

from ssl_lightning.report.metrics_file import STEP, read_table

MOST = 200
"""Rows that may be lost."""


def last_rows(metrics_csv: Path, step: int) -> list[tuple[int, dict[str, float]]]:
    """Up to `MOST` rows of a metrics table at or before a step, as (step, metrics by name); none if it is damaged."""
    try:
        rows = read_table(metrics_csv)[1] if metrics_csv.is_file() else []
    except (OSError, ValueError):
        return []
    kept = [row for row in rows if int(row[STEP]) <= step][-MOST:]
    return [
        (int(row[STEP]), {name: float(value) for name, value in row.items() if value != "" and name != STEP})
        for row in kept
    ]
