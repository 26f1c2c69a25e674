"""The table at the end of a command: the first and last evaluation of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_lightning.report.intervals import HALF_WIDTH, with_intervals
from ssl_lightning.report.metrics_file import STEP, read_table
from ssl_lightning.report.run_json import facts_of

PRIMARY = {
    "linear/top1": "linear",
    "ridge/top1": "ridge",
    "knn/top1": "k-NN 20",
    "knn200/top1": "k-NN 200",
    "fewshot/5way1shot": "5-way 1-shot",
    "fewshot/5way5shot": "5-way 5-shot",
    "lowshot/1pct": "1 % labels",
    "lowshot/10pct": "10 % labels",
    "clusters/nmi": "NMI",
}
"""Metrics (without their prefix `eval/`) in a table, and their headings."""
RAW_PIXELS = "knn_raw_pixels/top1"
"""Metric of raw pixels, in the evaluation before training."""
WARM_START = "warm_start_sha256"
"""The input of a run that takes its network from another run, as Local Aggregation can."""


def evaluations(metrics_csv: Path) -> list[tuple[int, dict[str, float]]]:
    """The rows of a metrics table with evaluations, as (step, metrics by name); damaged rows are left out."""
    if not metrics_csv.is_file():
        return []
    rows = []
    for row in read_table(metrics_csv)[1]:
        numbers = {name: float(row[name]) for name in row if name.startswith(("eval/", "eval_ema/")) and row[name]}
        if numbers:
            rows.append((int(row[STEP]), numbers))
    return rows


def results_table(
    metrics_csv: Path, start: str | None = None, probe_sets: Sequence[str] = (), intervals: bool = False
) -> str:
    """The first and last evaluation of a run, for every probe set.

    Args:
        metrics_csv: The metrics table of the run.
        start: Name of the row of step 0; None for `name_of_initial_weights`.
        probe_sets: Names of the probe sets, the primary one first, for the headings.
        intervals: Add the half-widths of 95 % intervals over test images.
    """
    rows, start = evaluations(metrics_csv), start or name_of_initial_weights(metrics_csv.parent)
    if not rows:
        return (
            "nothing was evaluated: that takes ProbeFeatures in trainer.callbacks, labels in data.probe_sets, and "
            "trainer.limit_val_batches above 0"
        )
    ends = [(step, with_intervals(numbers) if intervals else numbers) for step, numbers in (rows[0], rows[-1])]
    named = {(start if step == 0 else f"step {step}"): numbers for step, numbers in ends}
    if pixels := of_pixels(ends[0][1]):
        named = {"raw pixels": pixels} | named
    tables = [_set_table(name, named, probe_sets) for name in probe_set_prefixes(rows[-1][1])]
    return (
        "\n".join(tables) or f"evaluated in none of the metrics of this table ({', '.join(PRIMARY)}): see metrics.csv"
    )


def name_of_initial_weights(run: Path) -> str:
    """Name of the evaluation at step 0: `start` for the weights of a trained checkpoint, else `untrained`.

    Args:
        run: Folder of the run; without a valid run.json the network counts as untrained.
    """
    facts = facts_of(run)
    tables = [facts.get(name) for name in ("initial_weights", "inputs")]
    initial_weights, inputs = (table if isinstance(table, dict) else {} for table in tables)
    had_learned = initial_weights.get("path") or WARM_START in inputs
    return "start" if had_learned else "untrained"


def probe_set_prefixes(numbers: Mapping[str, float]) -> list[str]:
    """`eval`, `eval_ema` if averaged weights were evaluated, then `eval/<set>` for every further probe set."""
    prefixes = {
        name.removesuffix(f"/{metric}") for name in numbers for metric in PRIMARY if name.endswith(f"/{metric}")
    }
    return sorted(prefixes, key=lambda prefix: (prefix.count("/"), prefix))


def percent_table(rows: Mapping[str, Mapping[str, float]], title: str = "") -> str:
    """A text table in percent: one line per row, one column per metric of `PRIMARY` that any row has."""
    columns = [metric for metric in PRIMARY if any(metric in numbers for numbers in rows.values())]
    width = max(len(name) for name in [*rows, title])
    lines = [f"{title:<{width}}  " + "  ".join(f"{PRIMARY[column]:>12}" for column in columns)]
    for name, numbers in rows.items():
        cells = "  ".join(_cell(numbers, column) for column in columns)
        lines.append(f"{name:<{width}}  {cells}")
    return "\n".join(lines)


def _set_table(prefix: str, named: Mapping[str, Mapping[str, float]], probe_sets: Sequence[str]) -> str:
    rows = {
        name: {key.removeprefix(f"{prefix}/"): value for key, value in numbers.items() if key.startswith(f"{prefix}/")}
        for name, numbers in named.items()
    }
    rows = {name: numbers for name, numbers in rows.items() if numbers}
    first, _, name = prefix.partition("/")
    name = name or next(iter(probe_sets), "")
    return percent_table(rows, title=f"{first} on {name}" if name in probe_sets else prefix)


def of_pixels(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers of raw pixels in an evaluation, by the names of the same metrics of features."""
    return {name.replace(RAW_PIXELS, "knn/top1"): value for name, value in numbers.items() if f"/{RAW_PIXELS}" in name}


def _cell(numbers: Mapping[str, float], metric: str) -> str:
    if metric not in numbers:
        return f"{'':>12}"
    value = f"{100 * numbers[metric]:.1f}"
    half = numbers.get(f"{metric}/{HALF_WIDTH}")
    return f"{value if half is None else f'{value} ±{100 * half:.1f}':>12}"
