"""Carrying out the units of a build on an engine, with their progress."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lightning.data.manifest.parts import Built, Earlier, build_part, part_path
from ssl_lightning.data.manifest.units import Unit
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.engines import Count, Engine, LocalProcesses
from ssl_lightning.errors import DataError
from ssl_lightning.progress import progress

Work = tuple[Unit, list[Earlier]]
"""A unit, and parts of an earlier build of the same shard or folder."""
Finished = dict[int, Built]


@dataclass(frozen=True)
class _Task:
    """A unit with all that its part depends on."""

    unit: Unit
    earlier: list[Earlier]
    options: SourceOptions
    folder: str


def carry_out(
    work: list[Work], options: SourceOptions, folder: Path, workers: int, engine: Engine | None = None
) -> tuple[Finished, list[DataError]]:
    """Build the parts of units.

    Args:
        work: Units.
        options: How files are decoded.
        folder: Of the parts.
        workers: Number of processes; this process does the work alone for one.
        engine: Carries out the work; None for processes of this machine.

    Returns:
        What each part took by the position of its unit, and the errors of damaged shards.

    Raises:
        OSError: If a part cannot be written.
        RunStoppedError: If a process died.
    """
    engine = engine or LocalProcesses(workers)
    tasks = [_Task(unit, earlier, options, str(folder)) for unit, earlier in work]
    total = sum(unit.size for unit, _ in work)
    finished: Finished = {}
    errors: list[DataError] = []
    with progress(range(max(1, total)), "reading images", "B", shown=bool(work), is_size=True) as bar:
        for place, result in engine.carry_out(_build, tasks, _Shown(bar).add):
            if isinstance(result, DataError):
                errors.append(result)
            else:
                finished[place] = result
    return finished, errors


class _Shown:
    """The progress of a build in bytes, with its rate in files."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.began, self.files = bar, time.monotonic(), 0

    def add(self, files: int, size: int) -> None:
        self.files += files
        seconds = time.monotonic() - self.began
        if seconds > 1:
            self.bar.set_description(f"reading images, {self.files / seconds:,.0f} files/s", refresh=False)
        self.bar.update(size)


def _build(task: _Task, count: Count) -> Built:
    folder = Path(task.folder)
    if part_path(folder, task.unit.name).exists():  # of a worker that was lost after it wrote the part
        return Built()
    return build_part(task.unit, task.options, folder, task.earlier, count)
