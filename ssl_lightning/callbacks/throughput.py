"""Throughput: loss, learning rate and images per second of training, in the metrics."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
import torch

from ssl_lightning.callbacks.mean_vector import MeanVector
from ssl_lightning.callbacks.publish import publish, row_is_due
from ssl_lightning.clustering.products import has_bfloat16_units
from ssl_lightning.contracts import data_of, has_training_data
from ssl_lightning.processes import gather_rows, world

log = logging.getLogger(__name__)


class Throughput(pl.Callback):
    """Log a row every `trainer.log_every_n_steps` steps.

    `train/loss` is the mean over the steps since the last row and over processes; the sum so far is stored in the
    checkpoint, so a resumed run logs the same rows. `train/seconds` is the time of these steps without evaluation and
    clustering, `train/loading_seconds` the part of it in which this process waited for images, and
    `train/images_per_second` the number of images, not of views, in this time.
    """

    def __init__(self) -> None:
        self.loss = MeanVector(1)
        self._images = 0
        self._seconds = self._loading = 0.0
        self._since = self._loaded = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the sums to the device of the model and start the clock; warn of slow bfloat16."""
        self.loss.to(pl_module.device)
        self._start_clock(trainer)  # a resume within an epoch begins no epoch
        if trainer.precision == "bf16-mixed" and pl_module.device.type == "cpu" and _is_slow_in_bfloat16():
            log.warning(
                "found trainer.precision=bf16-mixed on a CPU without bfloat16 units, where it takes about twice as "
                "long; expected --trainer.precision 32-true there"
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock after clustering and evaluation."""
        self._start_clock(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock after an evaluation within an epoch."""
        self._start_clock(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a step; log a row when it is due."""
        self.loss.update(outputs["loss"].detach().reshape(1))
        self._images += len(batch.index) * trainer.world_size
        self._seconds += time.perf_counter() - self._since
        self._loading += _loading_seconds(trainer) - self._loaded
        if row_is_due(trainer, batch_idx):
            publish(trainer, self._row(trainer))
        self._start_clock(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Sums since the last row, of every process."""
        return {"loss_sums": gather_rows(self.loss.total.reshape(1, 2), world())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sums of a checkpoint; their mean where the number of processes has changed."""
        if "loss_sums" not in state_dict:  # written by an earlier version: the next row's mean is of fewer steps
            return
        group, sums = world(), state_dict["loss_sums"].reshape(-1, 2)
        own = sums[group.rank() if group else 0] if len(sums) == (group.size() if group else 1) else sums.mean(0)
        self.loss.total = own.to(self.loss.device)
        # torchmetrics counts updates outside its state and warns without any
        self.loss._update_count = 1

    def _start_clock(self, trainer: pl.Trainer) -> None:
        self._since, self._loaded = time.perf_counter(), _loading_seconds(trainer)

    def _row(self, trainer: pl.Trainer) -> dict[str, float]:
        row = {
            "train/loss": float(self.loss.compute()),
            "train/lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train/images_per_second": self._images / max(self._seconds, 1e-9),
            "train/seconds": self._seconds,
            "train/loading_seconds": self._loading,
        }
        if has_training_data(trainer) and (data := data_of(trainer)).masked:
            row |= {"data/masked": float(data.masked), "data/masked_share": data.masked_share}
        self.loss.reset()
        self._images, self._seconds, self._loading = 0, 0.0, 0.0
        return row


def _loading_seconds(trainer: pl.Trainer) -> float:
    return data_of(trainer).loading_seconds if has_training_data(trainer) else 0.0


def _is_slow_in_bfloat16() -> bool:
    """False for CPUs of other architectures than x86, of which nothing is known."""
    return torch.cpu.get_capabilities()["architecture"] == "x86_64" and not has_bfloat16_units()
