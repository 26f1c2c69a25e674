"""status: the runs of a folder, with their states, stages and best results."""

import time
from pathlib import Path

from ssl_lightning.progress import in_words
from ssl_lightning.report.table import PRIMARY
from ssl_lightning.runs.summary import RunSummary, runs_in, summarize

SHOWN = "eval/knn/top1"
"""The metric of the table."""
UNITS = ("B", "kB", "MB", "GB", "TB")


def main(folder: str = "runs") -> None:
    """Print a table of the runs in a folder: state, length, k-NN accuracy, age and size, and the stages of each.

    Args:
        folder: With one folder for each run.

    Raises:
        DataError: If there is no such folder.
    """
    runs = [summarize(path) for path in runs_in(Path(folder))]
    if not runs:
        print(f"no runs in {folder}")
        return
    lines = [_line(run) for run in runs]
    heads = ("run", "state", "method", "epoch", "step", PRIMARY["knn/top1"], "best", "changed", "time", "size")
    widths = [max(len(line[column]) for line in [heads, *lines]) for column in range(len(heads))]
    for line in [heads, *lines]:
        left = [f"{cell:<{width}}" for cell, width in zip(line[:3], widths[:3], strict=True)]
        right = [f"{cell:>{width}}" for cell, width in zip(line[3:], widths[3:], strict=True)]
        print("  ".join([*left, *right]).rstrip())
    for run in runs:
        for note in _notes(run, runs):
            print(note)


def _line(run: RunSummary) -> tuple[str, ...]:
    last, best = run.last(SHOWN), run.best().get(SHOWN)
    return (
        run.name,
        run.state,
        run.method,
        str(run.epoch),
        f"{run.step:,}",
        "" if last is None else f"{100 * last:.1f}",
        f"{100 * best[1]:.1f}" if best else "",
        f"{in_words(time.time() - run.updated)} ago",
        "" if run.seconds is None else in_words(run.seconds),
        _bytes(run.size),
    )


def _notes(run: RunSummary, runs: list[RunSummary]) -> list[str]:
    """Why a run ended, and what it needs of other runs."""
    lines = [f"{run.name}: {run.state}: {run.reason}"] if run.reason else []
    for path in run.needs:
        maker = next((other for other in runs if _is_within(path, other)), None)
        state = "" if maker is None else f" of {maker.name}, {maker.state}"
        there = "" if Path(path).exists() else ", which is not there"
        lines.append(f"{run.name}: needs {path}{state}{there}")
    return lines


def _is_within(path: str, run: RunSummary) -> bool:
    return Path(path).resolve().is_relative_to(run.path.resolve())


def _bytes(size: int) -> str:
    amount, unit = float(size), 0
    while amount >= 1000 and unit < len(UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} {UNITS[unit]}" if unit == 0 or amount >= 10 else f"{amount:.1f} {UNITS[unit]}"
