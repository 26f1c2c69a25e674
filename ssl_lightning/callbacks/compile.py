"""Compile: torch.compile for what a method is made of, for whoever has the minutes that it takes at the start."""

from typing import Literal

import lightning.pytorch as pl


class Compile(pl.Callback):
    """Compiles backbone and heads in place; names of weights and so checkpoints stay as they are.

    Off unless asked for: on CPUs in bfloat16 it gains nothing over eager mode, and every new shape (another resolution,
    a last batch, evaluating) is compiled once more. On the CPU with torch 2.14 the loss agrees with eager mode to
    rounding, gradients of a ResNet-18 in float32 only to a thousandth (eager mode: 7e-6 of float64's).

    Args:
        mode: As in `torch.compile`.
    """

    def __init__(self, mode: Literal["default", "reduce-overhead", "max-autotune"] = "default") -> None:
        self.mode = mode

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before the first step; compilation itself waits for the first images."""
        if stage == "fit":
            for child in pl_module.children():
                if any(True for _ in child.parameters()):
                    child.compile(mode=self.mode)
