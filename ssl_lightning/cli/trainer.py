"""The trainer of every run: its defaults, and the loggers, callbacks and plugins that are added in code."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ProgressBar

from ssl_lightning.callbacks import (
    CountFLOPs,
    DiagnosticSignals,
    Doctor,
    ImagesProgressBar,
    NeighborPurity,
    ProbeFeatures,
    ProgressLines,
    RawPixelBaseline,
    SampleFeatures,
    SampleTrainingImages,
    SaveClusters,
    SyncBatchNorm,
    Throughput,
    TimeLeft,
)
from ssl_lightning.callbacks.write_report import WriteReport
from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.cli.quiet import NoProfiler
from ssl_lightning.errors import UsageError
from ssl_lightning.runs import (
    MOST_CHARACTERS,
    Checkpointing,
    MetricsTable,
    NewOptions,
    Preemption,
    RunDirectory,
    StopBetweenBatches,
)
from ssl_lightning.runs.data_section import run_of
from ssl_lightning.runs.wandb_service import trial_of_sweep

DEFAULTS: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "log_every_n_steps": 10,
    "max_epochs": 20,
}
"""Options of the trainer that differ from Lightning's defaults."""


LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches")
"""Options of the trainer with a number of batches or a fraction of them."""


def tell_counts_from_fractions() -> None:
    """Make 1 a number of batches and 1.0 a fraction, in files and on the command line.

    Lightning's own annotations become "float or int" when Python evaluates them, and the parser takes the first that
    fits, so that `limit_val_batches: 1` would mean all batches.
    """
    for name in LIMITS:
        pl.Trainer.__init__.__annotations__[name] = int | float | None


def duration(max_time: Any) -> timedelta | None:
    """`trainer.max_time` as a time.

    Args:
        max_time: DD:HH:MM:SS, the arguments of a timedelta, a timedelta, or null for no limit.

    Raises:
        UsageError: It is none of these, or below zero.
    """
    try:
        if isinstance(max_time, dict):
            time = timedelta(**max_time)
        elif max_time is None or isinstance(max_time, timedelta):
            time = max_time
        else:
            days, hours, minutes, seconds = (int(number) for number in str(max_time).split(":"))
            time = timedelta(days, seconds, minutes=minutes, hours=hours)
    except (TypeError, ValueError) as error:
        raise UsageError(f"found trainer.max_time={max_time}; expected DD:HH:MM:SS, such as 00:12:00:00") from error
    if time is not None and time < timedelta():
        raise UsageError(f"found trainer.max_time={max_time}; expected a time above zero, such as 00:12:00:00")
    return time


class RunComponents:
    """What every run has beside the choices of its configuration.

    Args:
        run: Folder of the run.
        options: Of the command line.
        command: The command line as typed.
    """

    def __init__(self, run: RunDirectory, options: Namespace, command: list[str]) -> None:
        self.run, self.options = run, options
        self.preemption, self.new_options = Preemption(command, duration(options.trainer.max_time)), NewOptions()
        self.doctor = Doctor(options.doctor.on_collapse)
        self.report = WriteReport(str(run.path / "report"))

    def trainer_arguments(self, config: Namespace, fits: bool) -> dict[str, Any]:
        """Arguments of the trainer that replace those of the configuration, which they contain.

        Args:
            config: The trainer's section, instantiated.
            fits: Whether the subcommand trains.
        """
        loggers = [logger for logger in _as_list(config.logger) if logger not in (True, False)]
        return {
            "logger": [MetricsTable(self.run.path / "metrics.csv"), *loggers],
            "plugins": [*_as_list(config.plugins), DurableCheckpointIO()],
            "profiler": config.profiler or NoProfiler(),
            "callbacks": self._callbacks(_as_list(config.callbacks), config, fits),
            "default_root_dir": str(self.run.path),
            "sync_batchnorm": False,  # by our callback
            "max_time": None,  # by `Preemption`: Lightning would call the run finished
        }

    def _callbacks(self, own: list[pl.Callback], config: Namespace, fits: bool) -> list[pl.Callback]:
        """Those of the configuration, then those of every run; what follows the last checkpoint comes after it."""
        saves_clusters = [each for each in own if isinstance(each, SaveClusters)] or [SaveClusters()]
        time_left = TimeLeft()
        callbacks = [each for each in own if not isinstance(each, SaveClusters)]
        callbacks += [time_left] if fits else []
        if config.enable_progress_bar is not False and not any(isinstance(each, ProgressBar) for each in own):
            callbacks.append(ImagesProgressBar(time_left) if sys.stdout.isatty() else ProgressLines(time_left))
        if config.sync_batchnorm:
            callbacks.append(SyncBatchNorm())
        if fits:
            callbacks += [
                Throughput(),
                CountFLOPs(),
                DiagnosticSignals(),
                NeighborPurity(),
                self.doctor,
            ]
            probes = [each for each in own if isinstance(each, ProbeFeatures)]
            callbacks.append(SampleTrainingImages(str(self.run.path / "report"), bool(probes)))
            if probes:
                sample = SampleFeatures(str(self.run.path / "report"))
                probes[0].listeners.append(sample.keep)
                callbacks += [RawPixelBaseline(), sample]
            callbacks.append(self._checkpointing())
            callbacks += saves_clusters if self.options.run.save_clusters else []
            callbacks.append(self.report)
            callbacks += [self.new_options] if self.options.resume.allow_config_change else []
        return [*callbacks, StopBetweenBatches(self.preemption)]

    def _checkpointing(self) -> Checkpointing:
        epochs, steps = self.options.run.save_every_n_epochs, self.options.run.save_every_n_steps
        return Checkpointing(
            self.run.checkpoints, every_n_epochs=epochs, every_n_steps=steps, preemption=self.preemption
        )


def _as_list(value: Any) -> list[Any]:
    """What Lightning takes as one object or several."""
    return value if isinstance(value, list) else [] if value is None else [value]


def default_name(subcommand: str, options: Namespace) -> str:
    """Name of a run that is given none: `<config>-<data>-s<seed>`, and the subcommand where it is not fit.

    A trial of `wandb agent` has its id at the end, since all trials have the same configurations. With the checkpoint
    of a run, `<run>-<subcommand>`, and between them the packaged data source if one is given.
    """
    files = _files(options)
    methods = [file.stem for file in files if file.parent.name not in ("data", "scale", "shared")]
    sources = [file.stem for file in files if file.parent.name == "data"]
    folder = run_of(options.ckpt_path) if options.ckpt_path and subcommand != "fit" else None
    if folder is not None:
        suffix = "-".join(["", *sources[-1:], subcommand])
        return f"{folder.name[: MOST_CHARACTERS - len(suffix)]}{suffix}"
    method = methods[0] if methods else options.model.class_path.rpartition(".")[2].lower()
    source = name_of_data(options)
    trial = trial_of_sweep() if subcommand == "fit" else subcommand
    return f"{method}-{source}-s{int(options.seed_everything)}" + (f"-{trial}" if trial else "")


def name_of_data(options: Namespace) -> str:
    """The packaged data source of a command, or else the class of its data."""
    sources = [file.stem for file in _files(options) if file.parent.name == "data"]
    return sources[-1] if sources else options.data.class_path.rpartition(".")[2].lower()


def _files(options: Namespace) -> list[Path]:
    return [Path(str(file)) for file in options.get("config") or [] if file is not None]  # none for a text
