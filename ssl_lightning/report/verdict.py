"""What the metrics of a run say at its end: whether training helped, and which known failures last."""

from pathlib import Path

from ssl_lightning.report.metrics_file import read_table
from ssl_lightning.report.table import PRIMARY, RAW_PIXELS, evaluations, name_of_initial_weights, probe_set_prefixes

COMPARED = ("knn/top1", "linear/top1", "ridge/top1")
"""Metrics in which the trained network is compared with the untrained one."""
DOCTOR = "doctor/"


def not_better(run: Path) -> list[str]:
    """Metrics in which the trained network is below the untrained one or below raw pixels, a line each.

    Args:
        run: Folder of the run.
    """
    rows = evaluations(run / "metrics.csv")
    if len(rows) < 2:
        return []
    (_, before), (_, after) = rows[0], rows[-1]
    is_untrained, lines = name_of_initial_weights(run) == "untrained", []
    untrained = f"that of the {'untrained network' if is_untrained else 'starting weights'}"
    for prefix in probe_set_prefixes(after):
        where = "" if prefix == "eval" else f" in {prefix}"
        for metric in COMPARED:
            trained = after.get(f"{prefix}/{metric}")
            bounds = {untrained: before.get(f"{prefix}/{metric}")}
            if metric == "knn/top1":
                bounds["that of raw pixels"] = before.get(f"{prefix}/{RAW_PIXELS}")
            lines += [
                f"{PRIMARY[metric]} of the trained network{where}, {100 * trained:.1f}, is below {name}, "
                f"{100 * bound:.1f}"
                for name, bound in bounds.items()
                if trained is not None and bound is not None and trained < bound
            ]
    return lines


def failing(run: Path) -> list[str]:
    """Names of the training diagnostics that hold in their last row.

    Args:
        run: Folder of the run.
    """
    table = run / "metrics.csv"
    last: dict[str, float] = {}
    for row in read_table(table)[1] if table.is_file() else []:
        last |= {name: float(value) for name, value in row.items() if name.startswith(DOCTOR) and value}
    return [name.removeprefix(DOCTOR) for name, value in sorted(last.items()) if value]
