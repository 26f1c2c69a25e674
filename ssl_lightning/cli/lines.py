"""The first and the last lines of a training run: what runs, and what came out of it."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ssl_lightning.data import ImageModule
from ssl_lightning.methods import Method
from ssl_lightning.optim.steps import steps_per_epoch
from ssl_lightning.report.verdict import not_better
from ssl_lightning.words import counted


def first_lines(model: Method, data: ImageModule, trainer: pl.Trainer, folder: Path) -> list[str]:
    """Method, network, images, length, device and folder of a run; the sources of images are logged on their own.

    Args:
        model: The method.
        data: Set up to fit.
        trainer: Of the run.
        folder: Of the run.
    """
    backbone = model.described_arguments.get("backbone")
    network = f" with {_network(backbone)}" if isinstance(backbone, dict) else ""
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    sizes = " and ".join(str(size) for size in data.image_sizes("fit"))
    return [
        f"{type(model).__name__}{network}, {parameters:.2f} M parameters",
        f"{counted(data.num_samples, 'image')} at {sizes} px, probe sets: {', '.join(data.probes) or 'none'}",
        f"{_length(data, trainer)} of {data.batch_size * trainer.accumulate_grad_batches} images",
        f"{_devices(trainer)}, precision {trainer.precision}, writing to {folder}",
    ]


def last_lines(folder: Path, checkpoint: Path, failures: list[str]) -> list[str]:
    """Warnings of a training that did not help, the diagnostics, the report and the next command.

    Args:
        folder: Of the run.
        checkpoint: The last one.
        failures: Names of the training diagnostics that hold at the end.
    """
    return [
        *(f"warning: {line}" for line in not_better(folder)),
        f"training diagnostics: {', '.join(failures) or 'no failure'}",
        f"clusters and curves: {folder / 'report' / 'index.html'}",
        f"next: ssl-lightning embed {checkpoint} {folder}-features.safetensors",
    ]


def _network(described: dict[str, Any]) -> str:
    arguments = described.get("init_args") or {}
    name, width = arguments.get("name"), arguments.get("width")
    extra = f" {name}" if name else f" of width {width}" if width else ""
    return f"{str(described.get('class_path', '')).rpartition('.')[2]}{extra}"


def _devices(trainer: pl.Trainer) -> str:
    kind, processes = trainer.strategy.root_device.type, trainer.world_size
    return f"{processes} processes on {kind}" if processes > 1 else kind


def _length(data: ImageModule, trainer: pl.Trainer) -> str:
    """Epochs and steps, of all batches that the options of the trainer leave."""
    steps = steps_per_epoch(data.batches_per_epoch, trainer.limit_train_batches, trainer.accumulate_grad_batches)
    epochs, most = trainer.max_epochs, trainer.max_steps
    if most is not None and most > 0 and (epochs is None or epochs < 0 or most <= epochs * steps):
        return f"{counted(most, 'step')} ({most / steps:.3g} epochs)"
    return (
        f"{counted(epochs, 'epoch')} of {counted(steps, 'step')}" if epochs and epochs > 0 else "steps without a bound"
    )
