"""Doctor: training diagnostics that log known failures with suggestions."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import lightning.pytorch as pl

from ssl_lightning.callbacks.publish import publish, row_is_due
from ssl_lightning.errors import CollapseError
from ssl_lightning.failures import Failure

log = logging.getLogger(__name__)

PATIENCE = 200
"""Steps of a run before the first diagnosis: every network starts untrained."""
WINDOW = 100
"""Number of steps of the compared mean."""
FEWEST = 3
"""Rows that a mean is taken over at least."""
AFTER = 300
"""Steps after a switch in which a metric is compared with its trend before; later changes have other causes."""


@runtime_checkable
class ReportsFailures(Protocol):
    """The optional ability of a method that this callback uses."""

    def failures(self) -> list[Failure]:
        """Known failures of the method, with suggestions for its settings."""
        ...


class Trend(NamedTuple):
    """The trend of a metric before a switch, such as the start of a queue."""

    switch: int
    """Step of the first row after it."""
    step: float
    """Mean step of the rows before it."""
    level: float
    """Mean of the metric in them."""
    slope: float
    """Its change a step."""

    def left_by(self, step: int, value: float, falls: float) -> float:
        """Distance of a value from the range of a constant, a continued trend, and a fall by `falls` a step."""
        change = min(self.slope, -falls) * (step - self.step)
        return max(value - self.level, self.level + change - value, 0.0)


class Doctor(pl.Callback):
    """Compare the metrics of the last steps with the failures that the method knows.

    A failure is logged once when it appears and once when it is over; `doctor/<name>` is 1 in between, in every row.
    All values come from metrics.csv, where a diagnosis can be checked.

    Args:
        on_collapse: "warn", or "stop" to end the run with exit code 76 when a failure appears.

    Attributes:
        listeners: Called on rank 0 with the name of a failure and a line about it when it appears.

    Raises:
        CollapseError: With `on_collapse="stop"`, at the step at which the failure appears.
    """

    def __init__(self, on_collapse: Literal["warn", "stop"] = "warn") -> None:
        self.on_collapse = on_collapse
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.trends: dict[str, Trend | None] = {}
        self.found: dict[str, bool] = {}
        self.listeners: list[Callable[[str, str], None]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Diagnose at every row."""
        if not isinstance(pl_module, ReportsFailures) or not row_is_due(trainer, batch_idx):
            return
        failures = pl_module.failures()
        self._record(trainer.global_step, trainer.callback_metrics, failures)
        before = set(self.failing)
        lines = [line for failure in failures if (line := self._diagnose(failure, trainer.global_step))]
        publish(trainer, {f"doctor/{failure.name}": float(self.found[failure.name]) for failure in failures})
        for line in lines:
            log.warning(line)
        if trainer.is_global_zero:
            self._notify(set(self.failing) - before, lines)
        if self.on_collapse == "stop":
            self._stop(trainer, lines[0] if lines and any(self.found.values()) else None)

    @property
    def failing(self) -> list[str]:
        """Names of the failures that hold at the last row."""
        return [name for name, found in self.found.items() if found]

    def _notify(self, names: Iterable[str], lines: Iterable[str]) -> None:
        """Pass the failures that have appeared to the listeners."""
        for name in sorted(names):
            line = next(line for line in lines if line.startswith(f"doctor: {name} at "))
            for listener in self.listeners:
                listener(name, line)

    @staticmethod
    def _stop(trainer: pl.Trainer, line: str | None) -> None:
        """End all processes if the first one has found a failure: it writes metrics.csv."""
        line = trainer.strategy.broadcast(line) if trainer.world_size > 1 else line
        if line is not None:
            raise CollapseError(f"stopped by --doctor.on_collapse stop. {line}")

    def state_dict(self) -> dict[str, Any]:
        """The rows of the window, the trends and the failures."""
        trends = {name: trend and tuple(trend) for name, trend in self.trends.items()}
        return {"rows": self.rows, "courses": trends, "found": self.found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.rows = [
            (int(step), {str(name): float(value) for name, value in row.items()}) for step, row in state_dict["rows"]
        ]
        self.trends = {name: trend and Trend(*trend) for name, trend in state_dict["courses"].items()}
        self.found = {str(name): bool(found) for name, found in state_dict["found"].items()}

    def _record(self, step: int, metrics: Any, failures: Iterable[Failure]) -> None:
        """Add this row and drop those before the window. The trend before a switch is kept."""
        names = {failure.metric for failure in failures} | {failure.since for failure in failures if failure.since}
        row = {name: float(metrics[name]) for name in sorted(names) if name in metrics}
        for failure in failures:
            if failure.since and row.get(failure.since) == 1 and failure.name not in self.trends:
                self.trends[failure.name] = _trend(self.rows, failure.metric, step)
        self.rows.append((step, row))
        recent = [(at, kept) for at, kept in self.rows if at > step - WINDOW]
        self.rows = recent if len(recent) >= FEWEST else self.rows[-FEWEST:]

    def _diagnose(self, failure: Failure, step: int) -> str | None:
        """The line to log about one failure, if any."""
        known = self.found.setdefault(failure.name, False)
        rows = [(at, row[failure.metric]) for at, row in self.rows if failure.metric in row]
        values: list[float] | None = [value for _, value in rows]
        if failure.since:
            values = self._off_trend(failure, rows, step)
        if values is not None and (step < PATIENCE or len(values) < FEWEST):
            return None
        value = sum(values) / len(values) if values else None
        self.found[failure.name] = value is not None and failure.holds(value)
        if values and not failure.since:  # a mean may be in a range that the values only pass through
            latest = values[len(values) // 2 :]
            self.found[failure.name] &= failure.holds(sum(latest) / len(latest))
        if self.found[failure.name] and not known:
            message = failure.message.format(value=value)
            return f"doctor: {failure.name} at step {step}: {message}. Try {failure.suggestion}."
        if known and not self.found[failure.name]:
            return f"doctor: {failure.name} is over at step {step}"
        return None

    def _off_trend(self, failure: Failure, rows: list[tuple[int, float]], step: int) -> list[float] | None:
        """Distance of each row after the switch from the trend; None without a switch, or long after it."""
        trend = self.trends.get(failure.name)
        if trend is None or step > trend.switch + AFTER:
            return None
        return [trend.left_by(at, value, failure.falls) for at, value in rows if at >= trend.switch]


def _trend(rows: list[tuple[int, dict[str, float]]], metric: str, switch: int) -> Trend | None:
    """The straight line through the rows before a switch; None for too few rows."""
    points = [(at, row[metric]) for at, row in rows if metric in row]
    if len(points) < FEWEST:
        return None
    step, level = (sum(values) / len(points) for values in zip(*points, strict=True))
    rise = sum((at - step) * (value - level) for at, value in points)
    return Trend(switch, step, level, rise / sum((at - step) ** 2 for at, _ in points))
