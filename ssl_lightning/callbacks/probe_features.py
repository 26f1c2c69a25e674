"""ProbeFeatures: the probes on what validation just saw."""

import time
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from ssl_lightning.callbacks.publish import publish
from ssl_lightning.errors import diverged
from ssl_lightning.evaluation.few_shot import FewShot
from ssl_lightning.evaluation.knn import KNN
from ssl_lightning.evaluation.linear import LinearProbe
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe
from ssl_lightning.evaluation.rank import feature_std, rank_me
from ssl_lightning.processes import gather_rows, share_buffers, world

DEFAULT_PROBES = (LinearProbe(), KNN(), KNN(k=200), FewShot())
"""The probes of every method's configuration."""
EVALUATED = {"features": "eval", "ema_features": "eval_ema"}
"""What a method's validation step gives to evaluate, and where the numbers stand."""


@runtime_checkable
class HasProbeSets(Protocol):
    """What this callback needs of the data."""

    @property
    def probes(self) -> dict[str, tuple[Any, Any]]:
        """Training and test images of each probe set; their `classes` are equal."""
        ...


class ProbeFeatures(pl.Callback):
    """Fit each evaluate on frozen features of every probe set's training split and ask it about the test split.

    The features come from validation itself, once for all probes, by row. How often is the trainer's validation
    rhythm. Evaluating never touches the run: no weight, no buffer, no random state. It is a check during training, with
    a subset of the training rows (`data.reference_images`); `validate` probes with all of them. Where a method gives
    features of averaged weights too, they are evaluated as `eval_ema/...`.

    Args:
        probes: A list replaces the default, `DEFAULT_PROBES`: linear, k-NN with k=20 and k=200, few-shot.
    """

    def __init__(self, probes: list[Probe] | None = None) -> None:
        self.probes = list(DEFAULT_PROBES) if probes is None else probes
        self._seen: dict[int, list[dict[str, Tensor]]] = {}
        self._start = 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last time, and evaluate one network: all processes with the buffers of the first."""
        share_buffers(pl_module)
        self._seen = {}
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
        """Keep what the method saw of one batch."""
        features = {name: outputs[name].float().cpu() for name in EVALUATED if name in outputs}
        kept = {"index": outputs["index"].cpu(), "label": outputs["label"].cpu()} | features
        self._seen.setdefault(dataloader_idx, []).append(kept)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask every evaluate about every probe set.

        Raises:
            NonFiniteError: If there is nothing to evaluate.
        """
        if trainer.sanity_checking or not self._seen:
            return
        data = cast(HasProbeSets, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning
        metrics: dict[str, float] = {}
        for position, (name, (training_set, _)) in enumerate(data.probes.items()):
            train, test = self._split(2 * position, trainer), self._split(2 * position + 1, trainer)
            for features in (features for features in EVALUATED if features in train):
                if not all(torch.isfinite(split[features]).all() for split in (train, test)):
                    raise diverged(f"features of {name} that are not finite at step {trainer.global_step}")
                prefix = EVALUATED[features] if position == 0 else f"{EVALUATED[features]}/{name}"
                reference_rows, test_rows = ((split[features], split["label"]) for split in (train, test))
                answers = self._evaluate(reference_rows, test_rows, len(training_set.classes))
                metrics |= {f"{prefix}/{key}": value for key, value in answers.items()}
        metrics["eval/seconds"] = time.perf_counter() - self._start
        publish(trainer, metrics)
        self._seen = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As validation."""
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
        """As validation."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As validation."""
        self.on_validation_epoch_end(trainer, pl_module)

    def _split(self, loader: int, trainer: pl.Trainer) -> dict[str, Tensor]:
        """Features and labels of one split in row order, from all processes, each row once."""
        group, device, batches = world(), trainer.strategy.root_device, self._seen[loader]
        whole = {
            name: gather_rows(torch.cat([batch[name] for batch in batches]).to(device), group).cpu()
            for name in batches[0]
        }
        _, first = _unique_first(whole["index"])
        return {name: rows[first] for name, rows in whole.items()}

    def _evaluate(
        self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], num_classes: int
    ) -> dict[str, float]:
        # validate() runs in inference mode, fit's own validation does not: an evaluate that trains needs real tensors
        with isolate_rng(), torch.inference_mode(False), torch.enable_grad():
            splits = [LabelledFeatures(x.clone(), y.clone(), num_classes) for x, y in (train, test)]
            metrics = {name: value for probe in self.probes for name, value in probe(*splits).items()}
            features = splits[1].features
            return metrics | {"rankme": rank_me(features), "feature_std": feature_std(features)}


def _unique_first(index: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending rows, and where each occurs first."""
    order = torch.argsort(index, stable=True)
    ordered = index[order]
    first = torch.ones(len(ordered), dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first], order[first]
