"""SampleTrainingImages: features and thumbnails of some training images, for the maps of a run without evaluation."""

import logging
from pathlib import Path

import lightning.pytorch as pl
import torch
from jaxtyping import Int
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from ssl_lightning.callbacks.embed import Embeds, eval_mode
from ssl_lightning.callbacks.sample_features import neighbors_of, queries_of, sampled_rows, write_in_report
from ssl_lightning.callbacks.splits import joined_split
from ssl_lightning.contracts import TrainingData, data_of, has_training_data
from ssl_lightning.errors import DataError, PreemptedError, one_line
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.processes import highest, share_buffers
from ssl_lightning.report.feature_sample import FILES, IMAGES, TRAINING_IMAGES, FeatureSample
from ssl_lightning.report.thumbnails import as_jpeg, one_image, shrunk

log = logging.getLogger(__name__)


class SampleTrainingImages(pl.Callback):
    """Keep the features of up to 1,500 training images at the start and at the end of a run that evaluates nothing.

    A run with a probe set has the maps of its test images, see `SampleFeatures`. Images without labels have maps and
    nearest neighbors too. Weights and random state do not change, and nothing here stops a run.

    Args:
        folder: Folder of the report.
        has_probes: Whether the run has `ProbeFeatures`.
    """

    def __init__(self, folder: str, has_probes: bool) -> None:
        self.folder, self.has_probes = Path(folder), has_probes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the sample of the untrained network, or of the initial weights."""
        if trainer.global_step == 0:
            self._keep(trainer, pl_module, ("start", "last"))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the sample of the trained network."""
        self._keep(trainer, pl_module, ("last",))

    def _is_evaluated(self, trainer: pl.Trainer) -> bool:
        return self.has_probes and bool(data_of(trainer).probes) and trainer.limit_val_batches != 0

    def _keep(self, trainer: pl.Trainer, module: pl.LightningModule, kinds: tuple[str, ...]) -> None:
        if not has_training_data(trainer) or self._is_evaluated(trainer):
            return
        try:
            split = _agreed(trainer, module)
            if trainer.is_global_zero:
                content = _sample_of(split, data_of(trainer), trainer.global_step).encoded()
                for kind in kinds:
                    write_in_report(self.folder, FILES[kind], content)
                write_in_report(self.folder, IMAGES, as_jpeg(one_image(split["images"])))
        except PreemptedError:
            raise
        except Exception as error:
            reason = one_line(str(error)) or type(error).__name__
            log.warning("could not sample features of training images for the report (%s)", reason)


def _agreed(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Tensor]:
    """Rows, features and thumbnails of all processes.

    Raises:
        Exception: On all processes, if one of them fails.
    """
    batches: list[dict[str, Tensor]] = []
    failed: Exception | None = None
    try:
        rows = sampled_rows(data_of(trainer).num_samples)
        share_buffers(module)
        with trainer.precision_plugin.forward_context():
            batches = _embedded(module, data_of(trainer), rows)
    except Exception as error:
        failed = error
    has_failed = failed is not None or not batches
    if bool(highest(torch.tensor([int(has_failed)], device=trainer.strategy.root_device))):
        raise failed or DataError("a process has none of the images")
    return joined_split(batches, trainer)


def _embedded(module: pl.LightningModule, data: TrainingData, rows: Int[Tensor, "n"]) -> list[dict[str, Tensor]]:
    """Rows, features and thumbnails of the center views of some images, in batches."""
    own, batches = module.preprocessing, []
    if not isinstance(module, Embeds) or not isinstance(own, Preprocessing):
        return []
    with isolate_rng(), torch.no_grad(), eval_mode(module):
        for raw in data.predict_dataloader(rows):
            batch = data.center(module.transfer_batch_to_device(raw, module.device, 0))
            view = batch.views[0]
            features, images = module.embed(view).float().cpu(), shrunk(own.denormalize(view.float())).cpu()
            batches.append({"index": batch.index.cpu(), "features": features, "images": images})
    return batches


def _sample_of(split: dict[str, Tensor], data: TrainingData, step: int) -> FeatureSample:
    rows, features = split["index"], split["features"]
    labels, neighbors = data.labels[rows], neighbors_of(features)
    queries = queries_of(labels)
    return FeatureSample(
        step=step,
        probe_set=TRAINING_IMAGES,
        classes=list(data.training.classes),
        paths=data.training.select(rows).names,
        rows=rows,
        labels=labels,
        features=features,
        neighbors=neighbors,
        queries=queries,
        nearest=rows[neighbors[queries]],
    )
