"""Checkpointing: when a run is saved, which checkpoints are kept, and why a run stops early."""

import logging
import math
import random
import time
from itertools import chain
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from ssl_lightning.checkpoints.durable import point_last
from ssl_lightning.checkpoints.read import checkpoints_by_step, sidecar_path
from ssl_lightning.errors import DataError, DiskError, UsageError, diverged
from ssl_lightning.processes import highest
from ssl_lightning.runs.metrics import MetricsTable
from ssl_lightning.runs.preemption import BY_CODE, Preemption
from ssl_lightning.runs.record import CONFIG, INITIAL_WEIGHTS

log = logging.getLogger(__name__)
TABLE = "metrics"
"""Key of a checkpoint: the number of rows of metrics.csv before its step, and their digest."""
FAILURES_ALLOWED = 3
"""The run stops after this number of consecutive failed checkpoints (disk full)."""


class Checkpointing(pl.Callback):
    """Save at the ends of epochs and, within long epochs, every few minutes; stop on NaN and on signals.

    A checkpoint holds weights, optimizer, schedules, per-sample state, the position of the loader, the counters of
    callbacks, and the global random state of every process. No checkpoint is written between the last step of an epoch
    (or a step before validation) and the end of its validation, which Lightning would skip on resume.

    Args:
        folder: Folder of `step-<n>.ckpt`, its sidecar and `last.ckpt`.
        config: The inputs of the run as plain values; a resume compares them.
        initial_weights: The checkpoint of the initial weights, as plain values.
        every_n_epochs: Save at the end of every n-th epoch; more than 1 if epochs take seconds, as on a fast GPU.
        every_n_steps: Save within an epoch after this number of steps; None for time only.
        every_minutes: Save within an epoch if the last checkpoint is older.
        keep: Number of newest checkpoints to keep.
        preemption: The handler of signals.

    Raises:
        UsageError: For intervals below 1.
    """

    def __init__(
        self,
        folder: str | Path,
        config: dict[str, Any] | None = None,
        initial_weights: dict[str, Any] | None = None,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        every_minutes: float = 10.0,
        keep: int = 2,
        preemption: Preemption | None = None,
    ) -> None:
        if every_n_epochs < 1:
            raise UsageError(f"found run.save_every_n_epochs={every_n_epochs}; expected 1 for every epoch, or more")
        if every_n_steps is not None and every_n_steps < 1:
            raise UsageError(f"found run.save_every_n_steps={every_n_steps}; expected 1 or more, or null for none")
        self.folder, self.every_n_epochs = Path(folder), every_n_epochs
        self.config, self.initial_weights = config or {}, initial_weights or {}
        self.every_n_steps, self.every_minutes, self.keep = every_n_steps, every_minutes, keep
        self.preemption = preemption or Preemption()
        self._saved_step = -1
        self._saved_at = time.monotonic()
        self._failures = 0
        self._stop, self._old = 0, False
        self._random_state: list[dict[str, Any]] | None = None
        self._restored: tuple[int, int] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers again, after Lightning's, and check the restored optimizers.

        Raises:
            DataError: If the checkpoint has another number of optimizers or schedules: Lightning would ignore some.
        """
        made = (len(trainer.optimizers), len(trainer.lr_scheduler_configs))
        if self._restored is not None and self._restored != made:
            raise DataError(
                f"found {trainer.ckpt_path} with {self._restored[0]} optimizers and {self._restored[1]} schedules, "
                f"expected {made[0]} and {made[1]}: give another checkpoint, or begin with its weights alone: "
                "--run.start_from"
            )
        self.preemption.take()
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the random state of a resumed run, after all hooks that may use random numbers."""
        if self._random_state is not None:
            _set_random_state(self._random_state[trainer.global_rank])
            self._random_state = None

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Stop all processes before a loss that is not finite on any of them changes the weights.

        This is the only communication between processes in a step: a failed loss, a signal and the age of the last
        checkpoint are reduced together.

        Raises:
            NonFiniteError: On all processes.
        """
        # a Python float: the device is synchronized in any case, and testing a tensor takes seven times as long
        finite = math.isfinite(loss.item())
        if not (finite if trainer.world_size == 1 else self._agree(finite, loss.device)):
            found = f"loss {loss.item()}" if not finite else "a loss that is not finite on another process"
            raise diverged(f"{found} at step {trainer.global_step}")

    def _agree(self, finite: bool, device: torch.device) -> bool:
        """Whether all losses are finite; also reduces the exit codes of signals and whether a checkpoint is due."""
        own = torch.tensor([not finite, self.preemption.code, self._is_old()], device=device)
        failed, self._stop, old = highest(own).tolist()
        self._old = bool(old)
        return not failed

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Within an epoch, save if a checkpoint is due and exit if there was a signal, as reduced in the step."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not stepped or _is_evaluated_next(trainer, batch_idx):
            return
        if trainer.world_size == 1:
            self._stop, self._old = self.preemption.code, self._is_old()
        if self._stop or self._is_due(trainer.global_step):
            self.save(trainer)
        if self._stop:
            self._leave(trainer, self._stop)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """At the end of an epoch, after its validation, save if a checkpoint is due and exit if there was a signal."""
        code = self.preemption.agreed(trainer, self.preemption.code)
        if code or (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.save(trainer)
        if code:
            self._leave(trainer, code)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last checkpoint; a run that is bounded by steps can end within an epoch.

        Raises:
            DiskError: If it cannot be written.
        """
        if self._saved_step != trainer.global_step:
            self.save(trainer)
        if self._saved_step != trainer.global_step:
            raise DiskError(_no_room(self.folder / f"step-{trainer.global_step}.ckpt", "as the last checkpoint"))

    def save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint, point `last.ckpt` to it, remove old ones, in this order.

        Raises:
            NonFiniteError: If a weight or a running statistic is not finite; nothing is written.
            DiskError: After several consecutive failures.
        """
        _reject_non_finite_weights(trainer)
        path = self.folder / f"step-{trainer.global_step}.ckpt"
        error = self._write(trainer, path)
        if error is None:
            self._failures, self._saved_step, self._saved_at = 0, trainer.global_step, time.monotonic()
            return
        self._failures += 1
        if self._failures >= FAILURES_ALLOWED:
            raise DiskError(_no_room(path, f"{self._failures} times in a row ({error})"))
        log.warning(
            "could not write %s (%s); training continues; the next attempt is at the next checkpoint", path, error
        )

    def _write(self, trainer: pl.Trainer, path: Path) -> str | None:
        """Write the file; return the error of rank 0 on all processes, or None."""
        reason = None
        try:
            trainer.save_checkpoint(path)
        except OSError as error:
            reason = error.strerror or str(error)
            trainer.strategy.barrier()  # the other processes wait for the end of the write
        else:
            reason = self._link(path) if trainer.is_global_zero else None
        return trainer.strategy.broadcast(reason)

    def _link(self, path: Path) -> str | None:
        try:
            point_last(path)
            self._prune()
        except OSError as error:
            return error.strerror or str(error)
        return None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out: the random state of all processes and the inputs of the run.

        Raises:
            OSError: If rows of the metrics table cannot be written.
        """
        checkpoint["random_state"] = _all_random_states(trainer)
        loops = checkpoint.get("loops", {})
        if "validate_loop" in loops:  # a counter of batches of this process that nothing reads
            loops["validate_loop"] = _zeros(loops["validate_loop"])
        checkpoint[CONFIG], checkpoint[INITIAL_WEIGHTS] = self.config, self.initial_weights
        for logger in trainer.loggers:
            if isinstance(logger, MetricsTable):
                logger.flush()  # after the synchronization: it may fail on rank 0 only
                checkpoint.setdefault(TABLE, logger.tally(trainer.global_step))  # the first table is that of the run

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the random state for later. That of another number of processes is ignored, which is logged."""
        self._restored = (len(checkpoint["optimizer_states"]), len(checkpoint["lr_schedulers"]))
        states = checkpoint.get("random_state")
        if states is None:
            return
        if len(states) == trainer.world_size:
            for state in states:
                _check_random_state(state)
            self._random_state = states
        elif trainer.is_global_zero:
            log.warning(
                "found a checkpoint of %d processes, resumed on %d: images, their order and views stay; without "
                "trainer.sync_batchnorm the statistics of batch normalization are of other shares of a batch, and "
                "layers with random numbers, such as dropout, use other ones from here on",
                *(len(states), trainer.world_size),
            )

    def _is_due(self, step: int) -> bool:
        return self._old if self.every_n_steps is None else step - self._saved_step >= self.every_n_steps

    def _is_old(self) -> bool:
        return self.every_n_steps is None and time.monotonic() - self._saved_at > 60 * self.every_minutes

    def _prune(self) -> None:
        for path in checkpoints_by_step(self.folder)[self.keep :]:
            sidecar_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def _leave(self, trainer: pl.Trainer, code: int) -> None:
        by = "" if self.preemption.signal_code or not self.preemption.code else " by --trainer.max_time"
        raise BY_CODE[code](
            f"stopped{by} at step {trainer.global_step} with a checkpoint in {self.folder}; to resume: "
            f"{self.preemption.resuming}"
        )


def _zeros(counts: Any) -> Any:
    """The nested counters and flags of a loop before its first batch."""
    if isinstance(counts, dict):
        return {name: _zeros(count) for name, count in counts.items()}
    return type(counts)() if isinstance(counts, int | bool) else counts


def _no_room(path: Path, when: str) -> str:
    earlier = checkpoints_by_step(path.parent)
    kept = f"{earlier[0].name} is kept" if earlier else "there is no earlier checkpoint"
    again = "resumes from it" if earlier else "starts anew"
    advice = f"free some space on its disk and give the same command again, which {again}"
    return f"found {path} unwritable {when}; {kept}: {advice}"


def _is_evaluated_next(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether validation follows this step, or the epoch ends with it."""
    if batch_idx + 1 >= trainer.num_training_batches:
        return True
    every = trainer.val_check_batch
    if every is None or every == float("inf"):
        return False
    if trainer.check_val_every_n_epoch is None:  # Lightning counts batches over epochs
        batch_idx = trainer.fit_loop.epoch_loop.total_batch_idx
    return (batch_idx + 1) % int(every) == 0


def _reject_non_finite_weights(trainer: pl.Trainer) -> None:
    """Check weights and running statistics. The latter overflow before the loss, which uses statistics of the batch."""
    module = trainer.lightning_module
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if not torch.isfinite(tensor).all():
            raise diverged(f"numbers in {name} that are not finite at step {trainer.global_step}")


def _all_random_states(trainer: pl.Trainer) -> list[dict[str, Any]]:
    own = _random_state()
    if trainer.world_size == 1:
        return [own]
    states: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(states, own)
    return states


def _random_state() -> dict[str, Any]:
    """The state of global generators as tensors and plain values, readable with weights_only."""
    keys = np.random.get_state(legacy=False)  # noqa: NPY002  # the global generator that libraries use
    inner = keys["state"]
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "key": torch.from_numpy(inner["key"].astype(np.int64)),
            "pos": int(inner["pos"]),
            "has_gauss": int(keys["has_gauss"]),
            "gauss": float(keys["gauss"]),
        },
        "python": _python_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _numpy_state(numpy: dict[str, Any]) -> dict[str, Any]:
    inner = {"key": numpy["key"].numpy().astype(np.uint32), "pos": numpy["pos"]}
    return {"bit_generator": "MT19937", "state": inner, "has_gauss": numpy["has_gauss"], "gauss": numpy["gauss"]}


def _python_tuple(python: dict[str, Any]) -> tuple[Any, ...]:
    return python["version"], tuple(python["words"].tolist()), python["gauss"]


def _python_state() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    return {"version": version, "words": torch.tensor(words), "gauss": gauss}


def _check_random_state(state: dict[str, Any]) -> None:
    """Set the state on separate generators, which raise for an invalid state."""
    torch.Generator().set_state(state["torch"])
    np.random.RandomState().set_state(_numpy_state(state["numpy"]))
    if state.get("python") is not None:
        random.Random().setstate(_python_tuple(state["python"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.Generator("cuda").set_state(state["cuda"])


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(_numpy_state(state["numpy"]))  # noqa: NPY002
    python = state.get("python")  # missing in checkpoints of earlier versions
    if python is not None:
        random.setstate(_python_tuple(python))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
