"""RawPixelBaseline: k-NN accuracy of raw pixels, once before training."""

import logging
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float, UInt8
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn import functional

from ssl_lightning.callbacks.publish import publish
from ssl_lightning.callbacks.splits import joined_split
from ssl_lightning.contracts import data_of
from ssl_lightning.evaluation.knn import KNN
from ssl_lightning.evaluation.probe import LabelledFeatures
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.report.table import RAW_PIXELS

log = logging.getLogger(__name__)
SIDE = 32
"""Side in pixels to which larger images are reduced."""
LARGEST = 2 << 30
"""Bytes of the pixels of a split, in float32, above which a probe set is left out."""


class RawPixelBaseline(pl.Callback):
    """Evaluate the pixels of the center views by k-NN with k=20, as part of the evaluation before training.

    The metric is `eval/knn_raw_pixels/top1`. A trained network below it has learned nothing that helps k-NN. Pixels are
    fractions 0..1, and images of more than 32 px are reduced to 32 px by averaging.
    """

    def __init__(self) -> None:
        self._batches: dict[int, list[dict[str, Tensor]]] = {}
        self._taken: set[int] = set()
        """Positions of the probe sets that are evaluated."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the last pixels."""
        self._batches, self._taken = {}, set()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the pixels of one batch."""
        own = getattr(pl_module, "preprocessing", None)
        if not _is_before_training(trainer) or not isinstance(own, Preprocessing):
            return
        pixels = _pixels(batch.views[0], own)
        if batch_idx == 0 and dataloader_idx % 2 == 0:
            self._take_up(trainer, dataloader_idx // 2, pixels.shape[1])
        if dataloader_idx // 2 in self._taken:
            kept = {"index": batch.index.cpu(), "label": batch.label.cpu(), "pixels": pixels}
            self._batches.setdefault(dataloader_idx, []).append(kept)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate every probe set."""
        metrics = {}
        for position, (name, (training_set, _)) in enumerate(data_of(trainer).probes.items()):
            if position not in self._taken:
                continue
            train, test = (self._features(2 * position + split, len(training_set.classes), trainer) for split in (0, 1))
            with isolate_rng():
                accuracy = KNN()(train, test)["knn/top1"]
            metrics["eval/" + (f"{name}/" if position else "") + RAW_PIXELS] = accuracy
        if metrics:
            publish(trainer, metrics)
        self._batches, self._taken = {}, set()

    def _features(self, loader: int, num_classes: int, trainer: pl.Trainer) -> LabelledFeatures:
        split = joined_split(self._batches[loader], trainer)
        return LabelledFeatures(split["pixels"].float() / 255, split["label"], num_classes)

    def _take_up(self, trainer: pl.Trainer, position: int, dim: int) -> None:
        """Evaluate a probe set, or log that its pixels take too much memory."""
        name, pair = list(data_of(trainer).probes.items())[position]
        size = max(len(split.labels) for split in pair) * dim * 4
        if size <= LARGEST:
            self._taken.add(position)
        elif trainer.is_global_zero:
            log.info(f"raw pixels of {name} are not evaluated: {size / 1e9:.1f} GB, more than {LARGEST / 1e9:.1f} GB")


def _is_before_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "validate" and trainer.global_step == 0


def _pixels(images: Float[Tensor, "B 3 h w"], preprocessing: Preprocessing) -> UInt8[Tensor, "B D"]:
    """Bytes of normalized images, of 32 px at most."""
    pixels = preprocessing.denormalize(images.float())
    if pixels.shape[2] > SIDE:
        pixels = functional.interpolate(pixels, size=(SIDE, SIDE), mode="area")
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).flatten(1).cpu()
