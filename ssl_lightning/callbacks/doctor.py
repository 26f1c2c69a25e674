"""Doctor: says by name when a training fails in a known way, and what helps."""

import logging
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import lightning.pytorch as pl

from ssl_lightning.callbacks.publish import publish, row_is_due
from ssl_lightning.errors import CollapseError
from ssl_lightning.failures import Failure

log = logging.getLogger(__name__)

PATIENCE = 200
"""Steps of a run before anything is called a failure: every network starts out as one that has learned nothing."""
WINDOW = 100
"""Steps whose mean is looked at."""
FEWEST = 3
"""Rows that a mean is taken over at least, where rows are rare."""
AFTER = 300
"""Steps after a switch in which a metric is compared with its course before; later changes have other causes."""


@runtime_checkable
class ReportsFailures(Protocol):
    """What this callback asks of a method."""

    def failures(self) -> list[Failure]:
        """How the method is known to fail, with suggestions for its settings."""
        ...


class Trend(NamedTuple):
    """Where a metric was heading when something was switched on."""

    switch: int
    """Step of the first row after it."""
    step: float
    """Mean step of the rows before it."""
    level: float
    """Mean of the metric in them."""
    slope: float
    """Its change a step."""

    def left_by(self, step: int, value: float, falls: float) -> float:
        """How far outside of what standing still, going on as before, or falling by `falls` a step would give."""
        change = min(self.slope, -falls) * (step - self.step)
        return max(value - self.level, self.level + change - value, 0.0)


class Doctor(pl.Callback):
    """Compares the metrics of the last steps with the failures that the method names.

    A failure is said once on the console when it shows and once when it is over; `doctor/<name>` is 1 in between, in
    every row. Nothing is measured here: the numbers are those of metrics.csv, so whoever doubts a diagnosis can plot
    what it rests on.

    Args:
        on_collapse: "warn", or "stop" to end the run with exit code 76 when a failure shows.

    Raises:
        CollapseError: With `on_collapse="stop"`, at the step that the failure shows.
    """

    def __init__(self, on_collapse: Literal["warn", "stop"] = "warn") -> None:
        self.on_collapse = on_collapse
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.trends: dict[str, Trend | None] = {}
        self.found: dict[str, bool] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At every row."""
        if not row_is_due(trainer, batch_idx) or not isinstance(pl_module, ReportsFailures):
            return
        failures = cast(ReportsFailures, pl_module).failures()
        self._take(trainer.global_step, trainer.callback_metrics, failures)
        said = [line for failure in failures if (line := self._look(failure, trainer.global_step))]
        publish(trainer, {f"doctor/{failure.name}": float(self.found[failure.name]) for failure in failures})
        for line in said:
            log.warning(line)
        if self.on_collapse == "stop":
            self._stop(trainer, said[0] if said and any(self.found.values()) else None)

    @staticmethod
    def _stop(trainer: pl.Trainer, line: str | None) -> None:
        """End all processes if the first one has found a failure: its numbers are those of metrics.csv."""
        line = trainer.strategy.broadcast(line) if trainer.world_size > 1 else line
        if line is not None:
            raise CollapseError(f"stopped by --doctor.on_collapse stop. {line}")

    def state_dict(self) -> dict[str, Any]:
        """The rows of the window and what they showed."""
        trends = {name: trend and tuple(trend) for name, trend in self.trends.items()}
        return {"rows": self.rows, "courses": trends, "found": self.found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint's."""
        self.rows = [
            (int(step), {str(name): float(value) for name, value in row.items()}) for step, row in state_dict["rows"]
        ]
        self.trends = {name: trend and Trend(*trend) for name, trend in state_dict["courses"].items()}
        self.found = {str(name): bool(found) for name, found in state_dict["found"].items()}

    def _take(self, step: int, metrics: Any, failures: Iterable[Failure]) -> None:
        """Add this row; forget what lies before the window. The course up to a switch is kept."""
        names = {failure.metric for failure in failures} | {failure.since for failure in failures if failure.since}
        row = {name: float(metrics[name]) for name in sorted(names) if name in metrics}
        for failure in failures:
            if failure.since and row.get(failure.since) == 1 and failure.name not in self.trends:
                self.trends[failure.name] = _trend(self.rows, failure.metric, step)
        self.rows.append((step, row))
        recent = [(at, kept) for at, kept in self.rows if at > step - WINDOW]
        self.rows = recent if len(recent) >= FEWEST else self.rows[-FEWEST:]

    def _look(self, failure: Failure, step: int) -> str | None:
        """What is to be said about one failure now, if anything."""
        known = self.found.setdefault(failure.name, False)
        rows = [(at, row[failure.metric]) for at, row in self.rows if failure.metric in row]
        values: list[float] | None = [value for _, value in rows]
        if failure.since:
            values = self._off_trend(failure, rows, step)
        if values is not None and (step < PATIENCE or len(values) < FEWEST):
            return None
        value = sum(values) / len(values) if values else None
        self.found[failure.name] = value is not None and failure.holds(value)
        if values and not failure.since:  # a mean may be in a range that the values are only passing through
            latest = values[len(values) // 2 :]
            self.found[failure.name] &= failure.holds(sum(latest) / len(latest))
        if self.found[failure.name] and not known:
            message = failure.message.format(value=value)
            return f"doctor: {failure.name} at step {step}: {message}. Try {failure.suggestion}."
        if known and not self.found[failure.name]:
            return f"doctor: {failure.name} is over at step {step}"
        return None

    def _off_trend(self, failure: Failure, rows: list[tuple[int, float]], step: int) -> list[float] | None:
        """How far each row after the switch lies off; None where there is nothing to compare (any more)."""
        trend = self.trends.get(failure.name)
        if trend is None or step > trend.switch + AFTER:
            return None
        return [trend.left_by(at, value, failure.falls) for at, value in rows if at >= trend.switch]


def _trend(rows: list[tuple[int, dict[str, float]]], metric: str, switch: int) -> Trend | None:
    """The straight line through the rows before a switch; None where they are too few to know one."""
    points = [(at, row[metric]) for at, row in rows if metric in row]
    if len(points) < FEWEST:
        return None
    step, level = (sum(values) / len(points) for values in zip(*points, strict=True))
    rise = sum((at - step) * (value - level) for at, value in points)
    return Trend(switch, step, level, rise / sum((at - step) ** 2 for at, _ in points))
