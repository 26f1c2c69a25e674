"""Operations: what training multiplies and adds, so that methods can be compared at equal compute."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ssl_lightning.callbacks.publish import publish, row_is_due


class Operations(pl.Callback):
    """Writes `train/operations`, those of all steps so far on all processes, after the first and in every row.

    Counted are convolutions, products of matrices and attention, forward and backward, of the run's first step, a
    multiplication and an addition being two; all steps are taken to cost what it does, after a resume too. Views,
    normalization, the optimizer's work, clustering and evaluating are left out. Nothing is written where the step is
    compiled or its parameters are spread over processes: there the operations cannot be seen one by one.
    """

    def __init__(self) -> None:
        self._of_a_batch: int | None = None
        self._can_count = False
        self._counter: CountOperations | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find out whether operations can be seen."""
        self._can_count = not isinstance(trainer.strategy, ModelParallelStrategy) and not is_compiled(pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin to count, if that is possible and was not done."""
        if self._can_count and self._of_a_batch is None:
            self._counter = CountOperations()
            self._counter.__enter__()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Once count; a number after the first step, so that the shortest run has one, and when a row is due."""
        if self._counter is not None:
            self._of_a_batch = self._counter.total
            self._end_count()
        accumulated = trainer.accumulate_grad_batches
        first = trainer.global_step == 1 and (batch_idx + 1) % accumulated == 0
        if self._of_a_batch is not None and (first or row_is_due(trainer, batch_idx)):
            batches = trainer.global_step * accumulated * trainer.world_size
            publish(trainer, {"train/operations": float(self._of_a_batch * batches)})

    def state_dict(self) -> dict[str, int | None]:
        """What a batch costs."""
        return {"of_a_batch": self._of_a_batch}

    def load_state_dict(self, state_dict: dict[str, int | None]) -> None:
        """Take up a checkpoint's."""
        of_a_batch = state_dict["of_a_batch"]
        self._of_a_batch = None if of_a_batch is None else int(of_a_batch)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """A step that fails ends the count."""
        self._end_count()

    def _end_count(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counter = None


class CountOperations(TorchDispatchMode):
    """Adds up what torch's formulas say of every operation while it is entered.

    Attributes:
        total: Multiplications and additions, each counting one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry it out and count it."""
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=answer)
        return answer


def is_compiled(module: nn.Module) -> bool:
    """Whether any part of it was compiled in place."""
    return any(part._compiled_call_impl is not None for part in module.modules())
