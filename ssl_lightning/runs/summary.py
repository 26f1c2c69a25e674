"""What is known of a run from its folder alone: its state, its settings, its time, and its evaluations."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ssl_lightning.errors import DataError, InterruptError, PreemptedError, RequeueError
from ssl_lightning.report.best import best_values
from ssl_lightning.report.metrics_file import EPOCH, STEP, read_table
from ssl_lightning.report.run_json import facts_of, sessions_of
from ssl_lightning.report.table import evaluations
from ssl_lightning.runs.directory import RunDirectory
from ssl_lightning.runs.resume import CONTENT
from ssl_lightning.runs.sessions import FINISHED

STOPPED = {PreemptedError.exit_code, RequeueError.exit_code, InterruptError.exit_code}
"""Exit codes of a run that a signal or a time limit stopped, and that the same command resumes."""
IDENTITIES = ("data_fingerprint_by_names",)
"""Inputs that follow from others."""
MISSING = object()
"""The value of an input that a run does not have."""
KEPT = ("run.json", "done.json", "metrics.csv", "checkpoints")
"""Files of which the folder of a run has one at least."""


@dataclass(frozen=True)
class RunSummary:
    """A run as its folder describes it.

    Attributes:
        path: The folder.
        state: "finished", "running", "stopped" (by a signal or a time limit), "failed", "killed" (it left no reason)
            or "evaluated" (a result of validate, test or predict).
        reason: Of a failure or a stop, one line.
        step: Optimizer steps of the last row of metrics.csv.
        epoch: Finished epochs.
        inputs: The settings that determine the result, by their place.
        sessions: See `runs.sessions`.
        evaluations: (step, metrics by name) of every evaluation.
        rows: All rows of metrics.csv.
        seconds: Time of all sessions; None where it is unknown.
        updated: Time of the last change, in seconds since 1970.
        size: Bytes of the folder.
    """

    path: Path
    state: str
    reason: str
    step: int
    epoch: int
    inputs: dict[str, Any]
    sessions: list[dict[str, Any]]
    evaluations: list[tuple[int, dict[str, float]]]
    rows: list[dict[str, str]] = field(repr=False)
    seconds: float | None
    updated: float
    size: int

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def method(self) -> str:
        """Class of the method; empty where it is unknown."""
        return str(self.inputs.get("model.class_path") or "").rpartition(".")[2]

    @property
    def machine(self) -> str:
        """Where the last session ran; empty where it is unknown."""
        found = self.sessions[-1].get("machine") if self.sessions else None
        if not isinstance(found, dict):
            return ""
        devices = found.get("devices")
        if isinstance(devices, list) and devices:
            return f"{len(devices)} x {devices[0]}"
        return f"{found.get('cores')} cores of {found.get('processor')}"

    @property
    def needs(self) -> list[str]:
        """Files of earlier stages and checkpoints that it starts from."""
        names = [name.removesuffix(CONTENT) for name in self.inputs if name.endswith(CONTENT)]
        paths = [self.inputs.get(f"model.init_args.{name}") for name in names]
        return [path for path in paths if isinstance(path, str)]

    def best(self) -> dict[str, tuple[int, float]]:
        """For each evaluated metric the step and the value of its maximum after the first step."""
        return best_values(self.evaluations)

    def last(self, metric: str) -> float | None:
        """The value of a metric in the last evaluation that has it; None where there is none."""
        values = [numbers[metric] for _, numbers in self.evaluations if metric in numbers]
        return values[-1] if values else None


def is_run(path: Path) -> bool:
    """Whether a folder looks like that of a run."""
    return path.is_dir() and any((path / name).exists() for name in KEPT)


def runs_in(folder: Path) -> list[Path]:
    """Folders of runs in a folder, by name."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_run(path))
    except OSError as error:
        raise DataError(f"found no folder {folder} ({error.strerror}); expected one with runs") from error


def summarize(path: str | Path) -> RunSummary:
    """Read a folder of a run.

    Raises:
        DataError: If it is none.
    """
    path = Path(path)
    if not is_run(path):
        raise DataError(f"found {path}, which is no folder of a run; expected one with {', '.join(KEPT[:3])}")
    facts = facts_of(path)
    sessions = sessions_of(facts)
    rows = read_table(path / "metrics.csv")[1] if (path / "metrics.csv").is_file() else []
    last = rows[-1] if rows else {}
    state, reason = _state(path, facts, sessions)
    inputs = facts.get("inputs")
    return RunSummary(
        path=path,
        state=state,
        reason=reason,
        step=max((int(row[STEP]) for row in rows), default=0),
        epoch=int(float(last.get(EPOCH) or 0)),
        inputs=inputs if isinstance(inputs, dict) else {},
        sessions=sessions,
        evaluations=evaluations(path / "metrics.csv"),
        rows=rows,
        seconds=_seconds(sessions, path / "metrics.csv"),
        updated=max((_changed(path / name) for name in KEPT), default=0.0),
        size=sum(_size(Path(root) / name) for root, _, names in os.walk(path) for name in names),
    )


def named(runs: Sequence[RunSummary]) -> dict[str, RunSummary]:
    """Runs by the names of their folders, or by their paths where two have the same name."""
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else str(run.path): run for run in runs}


def differing_inputs(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """The settings that are not equal in all runs, by their place: a value for each run, `MISSING` for none."""
    places = dict.fromkeys(place for run in runs for place in run.inputs if place not in IDENTITIES)
    found = {place: [run.inputs.get(place, MISSING) for run in runs] for place in places}
    return {place: values for place, values in found.items() if any(value != values[0] for value in values[1:])}


def _state(path: Path, facts: dict[str, Any], sessions: list[dict[str, Any]]) -> tuple[str, str]:
    """The state of a run and the reason. done.json is not compared with its checkpoint, which may be large."""
    if (path / "done.json").is_file():
        return "finished", ""
    if _is_held(path):
        return "running", ""
    if not facts and not (path / "checkpoints").is_dir():
        return "evaluated", ""
    last = sessions[-1] if sessions else {}
    if "end" not in last:
        return "killed", "" if sessions else "its end was not recorded"
    reason = str(last["end"])
    if reason == FINISHED:
        return "killed", "done.json is missing"
    return ("stopped" if last.get("exit_code") in STOPPED else "failed"), reason


def _is_held(path: Path) -> bool:
    try:
        return RunDirectory(path.parent, path.name).is_held
    except ValueError:  # an archived run may have another name
        return False


def _seconds(sessions: list[dict[str, Any]], table: Path) -> float | None:
    """Time of all sessions; one without an end lasted until the last row of the table."""
    total = 0.0
    for each in sessions:
        started = _moment(each.get("started"))
        ended = _moment(each.get("ended")) or (_changed(table) if each is sessions[-1] else None)
        if started is None or ended is None:
            return None
        total += max(ended - started, 0.0)
    return total if sessions else None


def _moment(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None


def _changed(path: Path) -> float:
    try:
        return min(path.stat().st_mtime, time.time())
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
