"""The first and the last lines of a training run: what runs, and what came out of it."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ssl_lightning.data import ImageModule
from ssl_lightning.methods import Method
from ssl_lightning.report.table import PRIMARY, evaluations, name_of_initial_weights


def first_lines(model: Method, data: ImageModule, trainer: pl.Trainer, folder: Path) -> list[str]:
    """Method, network, length, device and folder of a run; the sources of images log themselves.

    Args:
        model: What is trained.
        data: Set up to fit.
        trainer: Of the run.
        folder: Of the run.
    """
    backbone = model.described_arguments.get("backbone")
    network = f" with {_network(backbone)}" if isinstance(backbone, dict) else ""
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return [
        f"{type(model).__name__}{network}: {parameters:.2f} M parameters, {_length(data, trainer)}, batches of "
        f"{data.batch_size * trainer.accumulate_grad_batches}",
        f"{trainer.world_size} x {trainer.strategy.root_device.type} in {trainer.precision}, writing to {folder}",
    ]


def last_lines(folder: Path, checkpoint: Path, failures: list[str]) -> list[str]:
    """Warnings of a training that did not help, the diagnostics, the report and the next command.

    Args:
        folder: Of the run.
        checkpoint: The last one.
        failures: Names of the training diagnostics that hold at the end.
    """
    lines = [f"warning: {line}" for line in _not_better(folder)]
    found = ", ".join(failures) or "no failure"
    return [
        *lines,
        f"training diagnostics: {found}",
        f"clusters and curves: {folder / 'report' / 'index.html'}",
        f"next: ssl-lightning embed {checkpoint} {folder}-features.safetensors",
    ]


def _not_better(folder: Path) -> list[str]:
    rows = evaluations(folder / "metrics.csv")
    if len(rows) < 2:
        return []
    (_, before), (_, after) = rows[0], rows[-1]
    return [
        f"{PRIMARY[metric]} of the trained network, {100 * after[name]:.1f}, is below that of the "
        f"{name_of_initial_weights(folder)} one, {100 * before[name]:.1f}"
        for metric in ("knn/top1", "linear/top1", "ridge/top1")
        if (name := f"eval/{metric}") in before and name in after and after[name] < before[name]
    ]


def _network(described: dict[str, Any]) -> str:
    arguments = described.get("init_args") or {}
    name, width = arguments.get("name"), arguments.get("width")
    extra = f" {name}" if name else f" of width {width}" if width else ""
    return f"{str(described.get('class_path', '')).rpartition('.')[2]}{extra}"


def _length(data: ImageModule, trainer: pl.Trainer) -> str:
    steps = -(-data.batches_per_epoch // trainer.accumulate_grad_batches)
    epochs, most = trainer.max_epochs, trainer.max_steps
    if most is not None and most > 0 and (epochs is None or epochs < 0 or most <= epochs * steps):
        return f"{most:,} steps ({most / steps:.3g} epochs)"
    return f"{epochs} epochs of {steps:,} steps" if epochs and epochs > 0 else "without a bound on its steps"
