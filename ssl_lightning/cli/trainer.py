"""The trainer of every run: its defaults, and the loggers, callbacks and plugins that are added in code."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace

from ssl_lightning.callbacks import (
    CountFLOPs,
    DiagnosticSignals,
    Doctor,
    ImagesProgressBar,
    NeighborPurity,
    SyncBatchNorm,
    Throughput,
)
from ssl_lightning.callbacks.write_report import WriteReport
from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.cli.quiet import NoProfiler
from ssl_lightning.runs import (
    Checkpointing,
    MetricsTable,
    NewOptions,
    Preemption,
    RunDirectory,
    StopBetweenBatches,
)

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


class RunComponents:
    """What every run has beside the choices of its configuration.

    Args:
        run: Folder of the run.
        options: Of the command line.
    """

    def __init__(self, run: RunDirectory, options: Namespace) -> None:
        self.run, self.options = run, options
        self.preemption, self.new_options = Preemption(), NewOptions()
        self.report = WriteReport(str(run.path / "report"))

    def trainer_arguments(self, config: Namespace, fits: bool) -> dict[str, Any]:
        """Arguments of the trainer that replace those of the configuration, which they contain.

        Args:
            config: The trainer's section, instantiated.
            fits: Whether the subcommand trains.
        """
        given = config.logger if isinstance(config.logger, list) else [config.logger]
        loggers = [logger for logger in given if logger not in (None, True, False)]
        return {
            "logger": [MetricsTable(self.run.path / "metrics.csv"), *loggers],
            "plugins": [*(config.plugins or []), DurableCheckpointIO()],
            "profiler": config.profiler or NoProfiler(),
            "callbacks": [*(config.callbacks or []), *self._callbacks(config, fits)],
            "default_root_dir": str(self.run.path),
            "sync_batchnorm": False,  # by our callback
        }

    def _callbacks(self, config: Namespace, fits: bool) -> list[pl.Callback]:
        callbacks: list[pl.Callback] = [ImagesProgressBar()] if config.enable_progress_bar is not False else []
        if config.sync_batchnorm:
            callbacks.append(SyncBatchNorm())
        if fits:
            doctor = Doctor(self.options.doctor.on_collapse)
            callbacks += [Throughput(), CountFLOPs(), DiagnosticSignals(), NeighborPurity(), doctor]
            callbacks += [self.report, self._checkpointing()]
            callbacks += [self.new_options] if self.options.resume.allow_config_change else []
        return [*callbacks, StopBetweenBatches(self.preemption)]

    def _checkpointing(self) -> Checkpointing:
        epochs, steps = self.options.run.save_every_n_epochs, self.options.run.save_every_n_steps
        return Checkpointing(
            self.run.checkpoints, every_n_epochs=epochs, every_n_steps=steps, preemption=self.preemption
        )


def default_name(subcommand: str, options: Namespace) -> str:
    """Name of a run that is given none: `<config>-<data>-s<seed>`, and the subcommand where it is not fit."""
    files = [Path(str(file)) for file in options.get("config") or []]
    methods = [file.stem for file in files if file.parent.name not in ("data", "scale", "shared")]
    sources = [file.stem for file in files if file.parent.name == "data"]
    method = methods[0] if methods else options.model.class_path.rpartition(".")[2].lower()
    source = sources[-1] if sources else options.data.class_path.rpartition(".")[2].lower()
    suffix = "" if subcommand == "fit" else f"-{subcommand}"
    return f"{method}-{source}-s{int(options.seed_everything)}{suffix}"
