"""CountFLOPs: the FLOPs of training, to compare methods at equal compute."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_lightning.callbacks.publish import publish, row_is_due


class CountFLOPs(pl.Callback):
    """Log `train/flops`, the FLOPs of all steps so far on all processes, after the first step and in every row.

    Convolutions, matrix products and attention of the run's first step are counted, forward and backward, with two
    FLOPs for a multiplication and an addition; all steps are taken to cost the same, after a resume too. Views,
    normalization, the optimizer, clustering and evaluation are left out. Nothing is logged for a compiled step or for
    sharded parameters, where single operations are not visible.
    """

    def __init__(self) -> None:
        self._of_a_batch: int | None = None
        self._can_count = False
        self._counter: FlopCounterMode | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check whether operations are visible."""
        self._can_count = not isinstance(trainer.strategy, ModelParallelStrategy) and not is_compiled(pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start to count in the first step."""
        if self._can_count and self._of_a_batch is None:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the count; log after the first step, so that the shortest run has a value, and when a row is due."""
        if self._counter is not None:
            self._of_a_batch = self._counter.get_total_flops()
            self._end_count()
        accumulated = trainer.accumulate_grad_batches
        first = trainer.global_step == 1 and (batch_idx + 1) % accumulated == 0
        if self._of_a_batch is not None and (first or row_is_due(trainer, batch_idx)):
            batches = trainer.global_step * accumulated * trainer.world_size
            publish(trainer, {"train/flops": float(self._of_a_batch * batches)})

    def state_dict(self) -> dict[str, int | None]:
        """The FLOPs of a batch."""
        return {"of_a_batch": self._of_a_batch}

    def load_state_dict(self, state_dict: dict[str, int | None]) -> None:
        """Restore the state of a checkpoint."""
        of_a_batch = state_dict["of_a_batch"]
        self._of_a_batch = None if of_a_batch is None else int(of_a_batch)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """End the count after an error."""
        self._end_count()

    def _end_count(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counter = None


def is_compiled(module: nn.Module) -> bool:
    """Whether any submodule is compiled in place."""
    return any(each._compiled_call_impl is not None for each in module.modules())
