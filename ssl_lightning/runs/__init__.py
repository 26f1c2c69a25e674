"""The files of a run: its folder, its metrics, its resume and its end."""

from ssl_lightning.runs.checkpointing import Checkpointing
from ssl_lightning.runs.directory import MOST_CHARACTERS, RunDirectory
from ssl_lightning.runs.external_loggers import ExternalLoggers
from ssl_lightning.runs.metrics import MetricsTable
from ssl_lightning.runs.options import NewOptions
from ssl_lightning.runs.preemption import Preemption, StopBetweenBatches
from ssl_lightning.runs.tensorboard import TensorBoardRun
from ssl_lightning.runs.wandb import WandbRun

__all__ = [
    "MOST_CHARACTERS",
    "Checkpointing",
    "ExternalLoggers",
    "MetricsTable",
    "NewOptions",
    "Preemption",
    "RunDirectory",
    "StopBetweenBatches",
    "TensorBoardRun",
    "WandbRun",
]
