"""ProbeFeatures: probes on the features of validation."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from ssl_lightning.callbacks.class_groups import groups_of
from ssl_lightning.callbacks.publish import publish
from ssl_lightning.callbacks.splits import joined_split
from ssl_lightning.clustering.rows import is_finite
from ssl_lightning.contracts import ImageTable, data_of
from ssl_lightning.errors import UsageError, diverged
from ssl_lightning.evaluation.few_shot import FewShot
from ssl_lightning.evaluation.knn import KNN
from ssl_lightning.evaluation.linear import LinearProbe
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe
from ssl_lightning.evaluation.rank import feature_std, rank_me
from ssl_lightning.processes import rank, share_buffers
from ssl_lightning.report.intervals import TEST_IMAGES

log = logging.getLogger(__name__)
DEFAULT_PROBES = (LinearProbe(), KNN(), KNN(k=200), FewShot())
"""The probes of every method's configuration."""
EVALUATED = {"features": "eval", "ema_features": "eval_ema"}
"""Outputs of the validation step that are evaluated, and the prefix of their metrics."""


@dataclass(frozen=True, eq=False)
class EvaluatedSplits:
    """What the probes of the primary probe set evaluate.

    Attributes:
        step: Optimizer steps before the evaluation.
        name: Name of the probe set.
        train: `index`, `label` and `features` of the training split.
        test: The same of the test split.
        test_images: The test images.
    """

    step: int
    name: str
    train: dict[str, Tensor]
    test: dict[str, Tensor]
    test_images: ImageTable


class ProbeFeatures(pl.Callback):
    """Fit each probe on frozen features of every probe set's training split and evaluate it on the test split.

    The features come from validation itself, once for all probes, by row; the trainer sets the validation interval.
    Evaluation changes no weight, no buffer and no random state of the run. During training it uses a subset of the
    training rows (`data.reference_images`); `validate` uses all of them. Features of averaged weights, where a method
    has some, are evaluated as `eval_ema/...`. Where the largest class has at least ten times as many training images as
    the smallest one, accuracies on the third of the classes with the most images and on that with the fewest are
    reported too, as `.../top1_head` and `.../top1_tail`.

    Args:
        probes: A list replaces the default, `DEFAULT_PROBES`: linear, k-NN with k=20 and k=200, few-shot.

    Attributes:
        listeners: Functions that the first process calls with the features of the primary probe set.
    """

    def __init__(self, probes: list[Probe] | None = None) -> None:
        self.probes: list[Probe] = list(DEFAULT_PROBES) if probes is None else probes
        self.listeners: list[Callable[[EvaluatedSplits], None]] = []
        self._batches: dict[int, list[dict[str, Tensor]]] = {}
        self._start = 0.0
        self._reported: set[str] = set()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the last features; all processes evaluate with the buffers of the first."""
        share_buffers(pl_module)
        self._batches = {}
        self._start = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the features of one batch."""
        features = {name: outputs[name].float().cpu() for name in EVALUATED if name in outputs}
        kept = {"index": outputs["index"].cpu(), "label": outputs["label"].cpu()} | features
        self._batches.setdefault(dataloader_idx, []).append(kept)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run every probe on every probe set.

        Raises:
            NonFiniteError: For features that are not finite.
            DataError: For more unreadable images of a split than the data allow.
        """
        if trainer.sanity_checking or not self._batches:
            return
        masked = data_of(trainer).note_unreadable_in_probe_sets()
        metrics: dict[str, float] = {"eval/masked": float(masked)} if masked else {}
        for position, (name, (training_set, test_set)) in enumerate(data_of(trainer).probes.items()):
            train, test = (joined_split(self._batches[2 * position + split], trainer) for split in (0, 1))
            self._report_limit(name, trainer, 2 * position)
            groups, described = groups_of(training_set, data_of(trainer).class_sizes)
            self._report_groups(name, described)
            for features in (features for features in EVALUATED if features in train):
                if not all(is_finite(split[features]) for split in (train, test)):
                    raise diverged(f"features of {name} that are not finite at step {trainer.global_step}")
                prefix = EVALUATED[features] if position == 0 else f"{EVALUATED[features]}/{name}"
                reference_rows, test_rows = ((split[features], split["label"]) for split in (train, test))
                values = self._evaluate(reference_rows, test_rows, len(training_set.classes), groups)
                metrics |= {f"{prefix}/{key}": value for key, value in values.items()}
            if position == 0 and "features" in train and rank() == 0:
                splits = EvaluatedSplits(trainer.global_step, name, train, test, test_set)
                for listener in self.listeners:
                    listener(splits)
        metrics["eval/seconds"] = time.perf_counter() - self._start
        publish(trainer, metrics)
        self._batches = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same as in validation."""
        self.on_validation_start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same as in validation."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same as in validation."""
        self.on_validation_epoch_end(trainer, pl_module)

    def _report_limit(self, name: str, trainer: pl.Trainer, loader: int) -> None:
        """Log once that the trainer evaluates the first batches of a probe set alone."""
        loaders, batches = trainer.val_dataloaders or trainer.test_dataloaders, self._batches
        if not isinstance(loaders, list):
            return
        whole = [len(each) for each in loaders[loader : loader + 2]]
        found = [len(batches.get(place, [])) for place in (loader, loader + 1)]
        line = (
            f"probe set {name}: the first {found[0]} of {whole[0]} batches of train and {found[1]} of {whole[1]} of "
            "test alone are evaluated, since trainer.limit_val_batches is set: do not compare these numbers with others"
        )
        if found != whole and line not in self._reported and rank() == 0:
            log.warning("%s", line)
        self._reported.add(line)

    def _report_groups(self, name: str, described: str) -> None:
        """Log once which classes are head and tail."""
        line = f"probe set {name}: top1 is also that of {described}"
        if described and line not in self._reported and rank() == 0:
            log.info("%s", line)
        self._reported.add(line)

    def _evaluate(
        self,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        num_classes: int,
        groups: Mapping[str, Tensor],
    ) -> dict[str, float]:
        # validate() runs in inference mode, fit's own validation does not: a probe that trains needs normal tensors
        with isolate_rng(), torch.inference_mode(False), torch.enable_grad():
            splits = [LabelledFeatures(x.clone(), y.clone(), num_classes, groups) for x, y in (train, test)]
            metrics: dict[str, float] = {}
            for probe in self.probes:
                values = probe(*splits)
                if twice := sorted(metrics.keys() & values.keys()):
                    raise UsageError(
                        f"found two probes with the metric {twice[0]}, the second of them {probe}; expected one: leave "
                        "one out, or evaluate them in two runs"
                    )
                metrics |= values
            features = splits[1].features
            counts = {TEST_IMAGES: float(len(features))}
            return metrics | counts | {"rankme": rank_me(features), "feature_std": feature_std(features)}
