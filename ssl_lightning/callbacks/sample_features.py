"""SampleFeatures: features and thumbnails of some test images, for the maps of the report."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.callbacks.probe_features import EvaluatedSplits
from ssl_lightning.callbacks.splits import joined_split
from ssl_lightning.contracts import data_of
from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.errors import one_line
from ssl_lightning.evaluation.knn import nearest_between, nearest_rows
from ssl_lightning.files import sweep_temporary, write_atomically
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.processes import rank
from ssl_lightning.report.feature_sample import FILES, IMAGES, MOST, FeatureSample
from ssl_lightning.report.thumbnails import as_jpeg, one_image, shrunk
from ssl_lightning.sample_state import first_occurrences

log = logging.getLogger(__name__)
TEST_SPLIT = 1
"""The loader of the test images of the primary probe set."""
NEIGHBORS = 8
"""Neighbors of each image."""
QUERIES = 8
"""Images with neighbors in the training split."""


class SampleFeatures(pl.Callback):
    """Keep the features of up to 1,500 test images of the primary probe set at step 0 and at the last evaluation.

    They are the features that the probes evaluate, `keep` is a listener of `ProbeFeatures`. The images are the same at
    every evaluation and in every run on the same data. Thumbnails are those of the center view, from the batches of
    the evaluation. Nothing here stops a run: where a file cannot be written, one line is logged.

    Args:
        folder: Folder of the report.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._rows = torch.empty(0, dtype=torch.int64)
        self._thumbnails: list[dict[str, Tensor]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what a killed run has left of an unfinished file."""
        if trainer.is_global_zero:
            with suppress(OSError):
                sweep_temporary(self.folder)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the rows, and drop the last thumbnails."""
        probes = list(data_of(trainer).probes.values())
        self._rows = sampled_rows(len(probes[0][1].labels)) if probes else self._rows[:0]
        self._thumbnails = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the thumbnails of the sampled images before and after training."""
        own = getattr(pl_module, "preprocessing", None)
        if trainer.state.fn != "validate" or dataloader_idx != TEST_SPLIT or not isinstance(own, Preprocessing):
            return
        is_sampled = torch.isin(batch.index.cpu(), self._rows)
        images = own.denormalize(batch.views[0][is_sampled.to(batch.views[0].device)].float())
        self._thumbnails.append({"index": batch.index.cpu()[is_sampled], "images": shrunk(images).cpu()})

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the thumbnails; all processes gather them."""
        if not self._thumbnails:
            return
        split = joined_split(self._thumbnails, trainer)
        self._thumbnails = []
        if rank() == 0 and len(split["images"]):
            write_in_report(self.folder, IMAGES, as_jpeg(one_image(split["images"])))

    def keep(self, splits: EvaluatedSplits) -> None:
        """Write the sample of an evaluation; a listener of `ProbeFeatures`, called on the first process.

        Args:
            splits: Features and labels of the primary probe set.
        """
        try:
            content = sample_of(splits).encoded()
        except (ValueError, RuntimeError) as error:
            log.warning("could not sample features for the report (%s)", one_line(str(error)))
            return
        for kind in ("start", "last") if splits.step == 0 else ("last",):
            write_in_report(self.folder, FILES[kind], content)


def write_in_report(folder: Path, name: str, content: bytes) -> None:
    """Write a file of the report's folder; one line where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, lambda file: file.write(content))
    except OSError as error:
        log.warning("could not write %s (%s): the report has no new map of features", folder / name, error)


def sampled_rows(count: int) -> Int[Tensor, "n"]:
    """The sampled ones of this number of images, ascending: a function of the number alone."""
    return permutation(0, Purpose.REFERENCE, 0, count)[:MOST].sort().values


def sample_of(splits: EvaluatedSplits) -> FeatureSample:
    """The sample of an evaluation."""
    kept = torch.isin(splits.test["index"], sampled_rows(len(splits.test_images.labels)))
    rows, labels, features = (splits.test[name][kept] for name in ("index", "label", "features"))
    names, queries = splits.test_images.names, queries_of(labels)
    return FeatureSample(
        step=splits.step,
        probe_set=splits.name,
        classes=list(splits.test_images.classes),
        paths=[names[row] for row in rows.tolist()],
        rows=rows,
        labels=labels,
        features=features.float(),
        neighbors=neighbors_of(features),
        queries=queries,
        nearest=splits.train["index"][nearest_between(features[queries], splits.train["features"], NEIGHBORS)],
    )


def queries_of(labels: Int[Tensor, "N"]) -> Int[Tensor, "Q"]:
    """Positions of the images that are shown with neighbors: the first image of each class, then others."""
    first = first_occurrences(labels)
    others = torch.arange(len(labels))
    return torch.cat([first, others[~torch.isin(others, first)]])[:QUERIES]


def neighbors_of(features: Float[Tensor, "N D"]) -> Int[Tensor, "N n"]:
    """Positions of the nearest images of each image, nearest first."""
    count = min(NEIGHBORS, len(features) - 1)
    if count < 1:
        return torch.zeros(len(features), 0, dtype=torch.int64)
    return nearest_rows(features, torch.arange(len(features)), count)
