"""Several runs side by side: results, settings, time and curves from their folders, and similarity of features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation.similarity import linear_cka
from ssl_lightning.inspect.embedded import MOST_IMAGES, features
from ssl_lightning.inspect.run import Run, load_run
from ssl_lightning.inspect.tables import table
from ssl_lightning.report.curves import comparison_figure
from ssl_lightning.report.table import PRIMARY, probe_set_prefixes
from ssl_lightning.runs.summary import MISSING, RunSummary, differing_inputs, named, summarize

CURVES = ("train/loss", "eval/knn/top1", "eval/linear/top1")
"""Metrics with a panel of curves by default."""
Paths = Sequence[str | Path]


def load_runs(paths: Paths) -> dict[str, Run]:
    """Runs by the names of their folders, see `load_run`.

    Args:
        paths: Folders of runs.
    """
    return dict(zip(_summaries(paths), map(load_run, paths), strict=True))


def results(runs: Paths, which: Literal["first", "last", "best"] = "last") -> Any:
    """A DataFrame of evaluations in percent: a row for each run and probe set, a column for each metric.

    Args:
        runs: Folders of runs.
        which: The first evaluation, the last one, or the best of each metric. The best is chosen on the test images, so
            it is too high as an estimate.
    """
    rows = []
    for name, run in _summaries(runs).items():
        step, numbers = _evaluation(run, which)
        for prefix in probe_set_prefixes(numbers):
            own = {PRIMARY[key]: numbers.get(f"{prefix}/{key}") for key in PRIMARY}
            percent = {title: 100 * value for title, value in own.items() if value is not None}
            rows.append({"run": name, "probe set": prefix} | ({} if step is None else {"step": step}) | percent)
    return table(rows, "run")


def run_facts(runs: Paths) -> Any:
    """A DataFrame with a row for each run: state, method, epochs, steps, FLOPs, minutes and machine.

    Args:
        runs: Folders of runs.
    """
    rows = []
    for name, run in _summaries(runs).items():
        flops = [float(row["train/flops"]) for row in run.rows if row.get("train/flops")]
        cost = {"FLOPs": flops[-1]} if flops else {}
        minutes = {} if run.seconds is None else {"minutes": run.seconds / 60}
        facts = {"state": run.state, "method": run.method, "epochs": run.epoch, "steps": run.step}
        rows.append({"run": name} | facts | cost | minutes | {"machine": run.machine})
    return table(rows, "run")


def differing_settings(runs: Paths) -> Any:
    """A DataFrame with a row for each setting in which the runs differ, and a column for each run.

    Args:
        runs: Folders of runs.
    """
    summaries = _summaries(runs)
    found = differing_inputs(list(summaries.values()))
    rows = [
        {"setting": place}
        | {name: "-" if value is MISSING else str(value) for name, value in zip(summaries, values, strict=True)}
        for place, values in found.items()
    ]
    return table(rows, "setting")


def draw_curves(runs: Paths, metrics: Sequence[str] = CURVES) -> Any:
    """Curves of all runs over the steps, a panel for each metric.

    Args:
        runs: Folders of runs.
        metrics: Columns of metrics.csv.
    """
    figure = comparison_figure({name: run.rows for name, run in _summaries(runs).items()}, metrics)
    return f"no run has logged {', '.join(metrics)}" if figure is None else figure


def feature_similarity(runs: Mapping[str, Run], max_images: int = MOST_IMAGES) -> Any:
    """A DataFrame of the linear CKA of each pair of runs on the same images, 0 to 1.

    Args:
        runs: Runs from `load_run` by name.
        max_images: See `features`.

    Raises:
        UsageError: For runs on different images.
    """
    if len({run.data.fingerprint for run in runs.values()}) > 1:
        raise UsageError(f"found {', '.join(runs)} trained on different images; expected runs on the same images")
    values = {name: features(run, max_images=max_images).values for name, run in runs.items()}
    return table([{"run": a, **{b: linear_cka(values[a], values[b]) for b in values}} for a in values], "run")


def _summaries(runs: Paths) -> dict[str, RunSummary]:
    return named([summarize(path) for path in runs])


def _evaluation(run: RunSummary, which: str) -> tuple[int | None, Mapping[str, float]]:
    """The step and the metrics of an evaluation; no step for the best, which differs between metrics."""
    if not run.evaluations:
        return None, {}
    if which == "best":
        return None, {name: value for name, (_, value) in run.best().items()}
    return run.evaluations[0 if which == "first" else -1]
