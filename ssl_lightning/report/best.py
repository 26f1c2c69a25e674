"""Best and last values of the evaluated metrics of a run."""

from collections.abc import Iterable, Mapping, Sequence

from ssl_lightning.report.intervals import HALF_WIDTH, with_intervals
from ssl_lightning.report.table import PRIMARY

NOT_RANKED = (
    "/seconds",
    "/masked",
    "/ci95",
    "/rankme",
    "/feature_std",
    "/knn_raw_pixels/top1",
    "/test_images",
    "/share",
)
"""Ends of the names of evaluated values of which a larger one is not a better one."""


def best_values(evaluations: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, tuple[int, float]]:
    """The step and the value of the maximum of each evaluated metric after the first step; the earliest of equals."""
    found: dict[str, tuple[int, float]] = {}
    for step, numbers in evaluations:
        for name, value in numbers.items() if step else ():
            is_number = value == value and not name.endswith(NOT_RANKED)
            if is_number and (name not in found or value > found[name][1]):
                found[name] = (step, value)
    return found


def summary_values(evaluations: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """The last value of every evaluated metric, and `best/<metric>` with `best/<metric>/step`."""
    values = {name: value for _, numbers in evaluations for name, value in numbers.items()}
    for name, (step, value) in best_values(evaluations).items():
        values |= {f"best/{name}": value, f"best/{name}/step": step}
    return values


def primary_metric(names: Iterable[str]) -> str | None:
    """The evaluated metric that decides which checkpoint is the best: the first of `PRIMARY` on the first probe set."""
    present = set(names)
    return next((f"eval/{metric}" for metric in PRIMARY if f"eval/{metric}" in present), None)


def probe_columns(start: str) -> tuple[str, ...]:
    """The columns of `probe_rows`; `start` is the name of the evaluation at step 0, see `name_of_initial_weights`."""
    return ("probe set", "metric", start, "last", "95 % interval ±", "best", "step of best")


def probe_rows(
    evaluations: Sequence[tuple[int, Mapping[str, float]]], probe_sets: Sequence[str] = ()
) -> list[tuple[str, str, float | None, float, float | None, float | None, int | None]]:
    """A row of `probe_columns` for each evaluated metric.

    Args:
        evaluations: (step, metrics by name), see `evaluations`.
        probe_sets: Names of the probe sets, the primary one first; its metrics have no name of a set.
    """
    first = dict(evaluations[0][1]) if evaluations and evaluations[0][0] == 0 else {}
    last = with_intervals({name: value for _, numbers in evaluations for name, value in numbers.items()})
    best = best_values(evaluations)
    rows = []
    for name, value in last.items():
        if name.endswith(NOT_RANKED):
            continue
        probe_set, metric = _divided(name, probe_sets)
        step, highest = best.get(name, (None, None))
        rows.append((probe_set, metric, first.get(name), value, last.get(f"{name}/{HALF_WIDTH}"), highest, step))
    order = {name: place for place, name in enumerate(probe_sets)}
    return sorted(rows, key=lambda row: (order.get(row[0], len(order)), row[1]))


def _divided(name: str, probe_sets: Sequence[str]) -> tuple[str, str]:
    """The probe set and the metric of a name `eval/[<set>/]<metric>`; metrics of averaged weights end in (EMA)."""
    prefix, _, rest = name.partition("/")
    first, _, metric = rest.partition("/")
    probe_set, metric = (first, metric) if first in probe_sets[1:] else (next(iter(probe_sets), ""), rest)
    return probe_set, f"{metric} (EMA)" if prefix == "eval_ema" else metric
