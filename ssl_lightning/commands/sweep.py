"""sweep: train the runs of a sweep file as plain `fit` commands, several at once, and compare them."""

import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import torch

from ssl_lightning.cli.config_names import find_config
from ssl_lightning.commands import compare
from ssl_lightning.commands.sweep_file import SEED, Sweep, Trial, read_sweep
from ssl_lightning.errors import InterruptError, PreemptedError, RunStoppedError, UsageError
from ssl_lightning.progress import in_words
from ssl_lightning.runs.summary import runs_in, summarize

PROGRAM = (sys.executable, "-P", "-m", "ssl_lightning")
"""As `ssl-lightning`, which imports nothing from the current folder."""
LOGS = ".logs"
"""Folder of what the trials print, beside their runs."""
POLL = 0.2
"""Seconds between two looks at the running trials."""
_PART = re.compile(r"(\d+)/(\d+)")


@dataclass
class _Running:
    """A trial that a process trains.

    Attributes:
        trial: The trial.
        number: Its number in the sweep, from 1.
        process: Of `fit`.
        slot: Which of the parallel jobs it is, from 0.
        log: What it prints.
        started: Time of its start, in seconds.
    """

    trial: Trial
    number: int
    process: subprocess.Popen[bytes]
    slot: int
    log: IO[bytes]
    started: float


def main(
    file: str,
    jobs: int = 1,
    part: str = "1/1",
    run_dir: str | None = None,
    dry_run: bool = False,
    count: int | None = None,
    seed: int = 0,
    html: str | None = None,
) -> None:
    """Train the runs of a sweep file, one folder each, and compare them; the same command again resumes.

    Args:
        file: YAML in the format of Weights & Biases (grid or random), or the name of a packaged one, such as
            sweeps/num_clusters.
        jobs: Runs that train at the same time. They divide the processor cores, and take turns over the GPUs.
        part: i/n for every n-th trial from the i-th, as in jobs of a Slurm array.
        run_dir: Folder of the runs; by default runs/<name of the file>.
        dry_run: Print the commands alone.
        count: Number of trials; by default run_cap of the file, or all of a grid.
        seed: Of a random search.
        html: Folder for a page of the comparison.

    Raises:
        DataError: The file cannot be read.
        UsageError: The file or an option does not fit.
        RunStoppedError: A trial failed, or a signal stopped the sweep.
    """
    if jobs < 1:
        raise UsageError(f"found jobs={jobs}; expected at least 1")
    path = find_config(file)
    sweep, root = read_sweep(path, count, seed), Path(run_dir or f"runs/{path.stem}")
    mine = _of_part(sweep.trials, part)
    if dry_run:
        for _, trial in mine:
            print(shlex.join(["ssl-lightning", *_arguments(trial, root)]))
        return
    if sweep.ends_early:
        print("early_terminate of the file is left out: `wandb agent` alone ends trials early")
    failed = _Trials(root, len(sweep.trials), jobs, sweep.metric).train(mine)
    _compare(sweep, root, html)
    if failed:
        raise RunStoppedError(
            f"{len(failed)} of {len(mine)} trials failed, first {failed[0]}: see {root / LOGS / failed[0]}.log; the "
            "same command trains them again"
        )


def _of_part(trials: Sequence[Trial], part: str) -> list[tuple[int, Trial]]:
    """The trials of a part with their numbers, from 1."""
    found = _PART.fullmatch(part)
    first, step = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= step:
        raise UsageError(f"found part={part}; expected i/n with i of 1 to n, such as 1/4")
    return list(enumerate(trials, 1))[first - 1 :: step]


def _arguments(trial: Trial, root: Path) -> list[str]:
    """Of `ssl-lightning`."""
    return ["fit", *trial.arguments, "--run.name", trial.name, "--run.dir", str(root)]


class _Trials:
    """Trials that train in processes of their own, some at the same time.

    Args:
        root: Folder of the runs.
        number: Of all trials of the sweep.
        jobs: Most processes at the same time.
        metric: The metric to print for each finished trial; empty for none.
    """

    def __init__(self, root: Path, number: int, jobs: int, metric: str) -> None:
        self.root, self.number, self.jobs, self.metric = root, number, jobs, metric
        self.running: list[_Running] = []
        self.failed: list[str] = []
        self.stopped_by = 0
        """Number of the signal that stopped the sweep; 0 for none."""

    def train(self, trials: Sequence[tuple[int, Trial]]) -> list[str]:
        """Train all, and return the names of those that failed.

        Raises:
            InterruptError: After SIGINT (Ctrl-C); the runs that trained have written a checkpoint.
            PreemptedError: The same after SIGTERM.
        """
        waiting = list(trials)
        with self._signals():
            while (waiting and not self.stopped_by) or self.running:
                while waiting and not self.stopped_by and len(self.running) < self.jobs:
                    self._start(*waiting.pop(0))
                time.sleep(POLL)
                for each in [each for each in self.running if each.process.poll() is not None]:
                    self._end(each)
        if self.stopped_by:
            error = InterruptError if self.stopped_by == signal.SIGINT else PreemptedError
            raise error(f"the sweep was stopped, {len(waiting)} trials have not started; the same command resumes it")
        return self.failed

    def _start(self, number: int, trial: Trial) -> None:
        log = self.root / LOGS / f"{trial.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        slot = min({*range(self.jobs)} - {each.slot for each in self.running})
        words = [*PROGRAM, *_arguments(trial, self.root)]
        stream = log.open("ab")
        # a session of its own: Ctrl-C reaches this process alone, which passes one signal on
        process = subprocess.Popen(
            words,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(slot, self.jobs),
            start_new_session=True,
        )
        self.running.append(_Running(trial, number, process, slot, stream, time.monotonic()))
        print(f"[{number}/{self.number}] {trial.name}: started, {log}", flush=True)

    def _end(self, each: _Running) -> None:
        self.running.remove(each)
        each.log.close()
        code, took = each.process.returncode, in_words(time.monotonic() - each.started)
        if code == 0:
            value = self._value(each.trial)
            print(f"[{each.number}/{self.number}] {each.trial.name}: finished in {took}{value}", flush=True)
        elif self.stopped_by:
            print(f"[{each.number}/{self.number}] {each.trial.name}: stopped after {took}", flush=True)
        else:
            self.failed.append(each.trial.name)
            reason = _last_line(Path(each.log.name))
            print(f"[{each.number}/{self.number}] {each.trial.name}: failed ({code}): {reason}", flush=True)

    def _value(self, trial: Trial) -> str:
        value = summarize(self.root / trial.name).last(self.metric)
        return "" if value is None else f", {self.metric} {value:.4g}"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass SIGINT and SIGTERM on to the trials: each ends with a checkpoint after its step, at a second one now."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopped_by = number
            for each in self.running:
                if each.process.poll() is None:
                    each.process.send_signal(signal.SIGTERM)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _environment(slot: int, jobs: int) -> dict[str, str]:
    """The environment of a trial: parallel ones divide the cores, and take turns over the GPUs, unless it is set."""
    found = dict(os.environ)
    if jobs > 1:
        found.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        if torch.cuda.device_count():
            found.setdefault("CUDA_VISIBLE_DEVICES", str(slot % torch.cuda.device_count()))
    return found


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def _compare(sweep: Sweep, root: Path, html: str | None) -> None:
    """Print the table of `compare` for the finished trials, the best one, and means over seeds."""
    there = {path.name for path in runs_in(root)} if root.is_dir() else set()
    found = {trial.name: trial for trial in sweep.trials if trial.name in there}
    runs = {name: summarize(root / name) for name in found}
    finished = {name: run for name, run in runs.items() if run.state == "finished"}
    print(f"{len(finished)} of {len(sweep.trials)} trials have finished")
    if len(finished) > 1:
        compare.main([str(root / name) for name in finished], html)
    values = {name: value for name, run in finished.items() if (value := run.last(sweep.metric)) is not None}
    if values:
        best = (max if sweep.is_larger_better else min)(values, key=lambda name: values[name])
        print(f"best {sweep.metric}: {values[best]:.4g}, {root / best}")
        for line in _over_seeds({name: found[name] for name in values}, values):
            print(line)


def _over_seeds(trials: dict[str, Trial], values: dict[str, float]) -> list[str]:
    """Mean and standard deviation of each setting over its seeds, if there are several."""
    groups: dict[str, list[float]] = {}
    for name, trial in trials.items():
        setting = ", ".join(f"{option}={value}" for option, value in trial.values.items() if option != SEED)
        groups.setdefault(setting, []).append(values[name])
    return [
        f"{setting or 'all'}: mean {statistics.mean(each):.4g}, std {statistics.stdev(each):.2g} over {len(each)} seeds"
        for setting, each in groups.items()
        if len(each) > 1
    ]
