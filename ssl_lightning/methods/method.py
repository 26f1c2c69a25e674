"""Method: what every learning method shares. The one floor of inheritance of the package."""

import inspect
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Float, UInt8
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ssl_lightning.checkpoints.plain import class_path, to_plain
from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.rows import reject_few_rows
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, equal_embeddings, rank_one, unnormalized_inputs
from ssl_lightning.methods.checks import (
    CountsImages,
    MakesViews,
    reject_precision,
    reject_strategy,
    reject_views,
    warn_of_micro_batches,
)
from ssl_lightning.models.backbones import Backbone
from ssl_lightning.models.sharded import shard
from ssl_lightning.optim.exclusion import without_decay
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.sample_state import FeatureBank, FeatureQueue, PseudoLabels
from ssl_lightning.types import Batch, Weights

RGB = tuple[float, float, float]
_EXTRA_STATE = "_extra_state"
"""What torch ends the names of extra state with: that of memories, which belong to rows."""
_HOOK_AT_HAND = "_current_fx_name"
"""The attribute in which Lightning notes which hook it is in."""
_OF_TRAINING = ("self", "optimizer", "schedule")
"""Arguments that a method restored from a checkpoint does without."""


@runtime_checkable
class CountsSteps(Protocol):
    """What a schedule needs of the data."""

    batches_per_epoch: int


class Method(pl.LightningModule):
    """A backbone, how to embed an image with it, and what the other rooms ask of a method.

    A concrete method adds its constructor (which is its configuration), `training_step`, and `on_reclustered` if it
    has pseudo-labels. It stores state that belongs to dataset rows in `ssl_lightning.sample_state`, so that
    checkpoints hold
    all of it. What a step changes besides parameters is to be written by `on_after_backward`: a checkpoint is written
    after the step, before `LightningModule.on_train_batch_end`.

    Args:
        backbone: Description of the network.
        optimizer: Parameters or parameter groups to an optimizer; None for methods that do not train.
        schedule: Of the learning rate of every parameter group, in steps; None keeps it constant.
        image_size: Side of the images of the run, in pixels.
        mean: Mean of the images' channels as fractions 0..1; travels in the checkpoint.
        std: Their standard deviation.
        in_channels: What reaches the backbone: 3, or 2 behind a Sobel stem.
        decay_all: Give weight decay (and the adaptation of LARS) to biases and normalization layers too.
    """

    num_clusters: int | None = None
    """K of each clustering; None for methods without pseudo-labels."""
    num_heads: int = 1
    """H, clusterings at a time."""
    constructor_arguments: dict[str, Any]
    """What the concrete class was made with, defaults included."""
    described_arguments: dict[str, Any]
    """The same as a configuration describes them, for what is no plain value: modules, classes, factories."""
    min_views: int = 1
    """How many views of an image a training step needs."""
    chance_loss: float | None = None
    """The loss of predictions that are the same for every image, where the method has such a thing: mostly ln K."""
    micro_batch_effect: str = ""
    """What gradient accumulation does to the loss beyond averaging it; empty for nothing."""
    predict_layer: str | None = None
    """Which of `layers` `predict` embeds with; None for the first."""
    fingerprint: str = ""
    """sha256 of the checkpoint that the weights came from, empty for a fresh network."""
    data_fingerprint: str = ""
    """Of the images that a method from a checkpoint was trained on, where that is known."""
    per_sample_buffers: tuple[str, ...] = ()
    """Buffers that are functions of the training rows, as memories are, and mean nothing for other images."""
    warmup_epochs: int = 0
    """Epochs that need no clusters yet; the first clustering comes after them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Method":
        """Note the arguments of the concrete constructor, whichever way it is called."""
        method = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(method, *args, **kwargs)
        bound.apply_defaults()
        passed_on = {name for name, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD}
        given = {name: value for name, value in bound.arguments.items() if name not in passed_on}
        for name in passed_on:  # arguments of a base class, by their own names
            given |= bound.arguments[name]
        arguments = {name: value for name, value in given.items() if name not in _OF_TRAINING}
        object.__setattr__(method, "constructor_arguments", arguments)
        object.__setattr__(method, "described_arguments", {})
        return method

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Fifty times a step Lightning notes the hook at hand in an attribute, and a module would look for parameters.
        """
        if name == _HOOK_AT_HAND:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable | None,
        schedule: Schedule | None,
        image_size: int,
        mean: RGB,
        std: RGB,
        in_channels: int = 3,
        decay_all: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone.build(in_channels)
        self.optimizer, self.schedule, self.decay_all = optimizer, schedule, decay_all
        self.image_size, self.mean, self.std = image_size, mean, std

    def normalize(self, images: UInt8[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """Images to what `embed` takes, by the mean and standard deviation of this run."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return (images.float() / 255 - mean) / std

    def configure_model(self) -> None:
        """Spread parameters over processes where the strategy asks for it (`ModelParallelStrategy`)."""
        if self.device_mesh is not None:
            for child in self.children():
                shard(child, self.device_mesh["data_parallel"])

    @property
    def layers(self) -> tuple[str, ...]:
        """Names that `embed(layer=...)` takes; the first is the default."""
        return ("backbone",)

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Normalized images to the backbone's features."""
        return self.backbone(images)

    def embed(
        self, images: Float[Tensor, "B 3 h w"], layer: str | None = None, weights: Weights = "online"
    ) -> Float[Tensor, "B D"]:
        """Features of normalized images, for clustering, evaluating and people, in float32.

        Args:
            images: From `normalize`, or the views of a batch.
            layer: One of `layers`; None for the first.
            weights: "ema" for the averaged weights of methods that have them.

        Raises:
            ValueError: For a layer or weights that this method does not have.
        """
        if layer not in (None, *self.layers):
            raise UsageError(f"found layer={layer!r}; {type(self).__name__} has {', '.join(self.layers)}")
        features = self.features if weights == "online" else self.averaged_features
        return features(images, layer or self.layers[0]).float()

    def features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """What `embed` gives for one of `layers`."""
        return self(images)

    def averaged_features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """What `embed` gives with the averaged weights, for methods that keep some.

        Raises:
            ValueError: For a method that keeps none.
        """
        raise UsageError(f"found weights='ema'; {type(self).__name__} keeps no averaged weights: use 'online'")

    @property
    def keeps_average(self) -> bool:
        """Whether there are averaged weights beside the online ones; they are evaluated too, as `eval_ema/...`."""
        return type(self).averaged_features is not Method.averaged_features

    def setup(self, stage: str) -> None:
        """Reject data and trainers that do not suit the method before anything else is done.

        Raises:
            ValueError: For fewer views or images than the method needs, weights that are not float32, or parameters
                spread over processes where clusters become a head or an average is kept.
        """
        name, data = type(self).__name__, getattr(self.trainer, "datamodule", None)
        reject_precision(self.trainer.precision)
        reject_strategy(self.trainer.strategy, name, self.keeps_average, self._learns_from_clusters)
        if stage != "fit":
            return
        if isinstance(data, CountsImages):
            self.reject_few(data.num_samples)
        if isinstance(data, MakesViews):
            reject_views(data, name, self.min_views)
            warn_of_micro_batches(self.trainer.accumulate_grad_batches, self.micro_batch_effect)

    def reject_few(self, num_samples: int) -> None:
        """Reject fewer training images than the method needs, which is known before any is embedded.

        Args:
            num_samples: N.

        Raises:
            ValueError: If there are fewer than clusters, for methods that learn from those.
        """
        if self._learns_from_clusters:
            reject_few_rows(num_samples, self.num_clusters or 0)

    @property
    def _learns_from_clusters(self) -> bool:
        """Whether `Recluster` makes `num_clusters` of the training images, not an earlier stage or the method."""
        return type(self).on_reclustered is not Method.on_reclustered

    def take_weights(self, state: dict[str, Any]) -> None:
        """Take up the networks of a checkpoint, and nothing that belongs to the rows that it was trained on.

        Memories, pseudo-labels and queues stay as they are, so the first clustering is made of the rows of this run.

        Args:
            state: The checkpoint's `state_dict`.

        Raises:
            RuntimeError: For networks of other names or shapes, in torch's words.
        """
        own = {name: value for name, value in self.state_dict().items() if self._is_of_rows(name)}
        self.load_state_dict({name: value for name, value in state.items() if not self._is_of_rows(name)} | own)

    def misfit(self, state: dict[str, Any]) -> str:
        """The first tensor of a checkpoint's networks that is not one of this method's; empty if all are.

        Args:
            state: The checkpoint's `state_dict`.
        """
        own, given = self._shapes(self.state_dict()), self._shapes(state)
        for name in sorted(own.keys() | given.keys()):
            if own.get(name) != given.get(name):
                return f"{name} {given.get(name, 'missing')} instead of {own.get(name, 'none')}"
        return ""

    def _shapes(self, state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in state.items() if not self._is_of_rows(name)}

    def _is_of_rows(self, name: str) -> bool:
        return name in self.per_sample_buffers or name.endswith(_EXTRA_STATE)

    def stage_files(self) -> dict[str, str]:
        """Files of earlier stages that this method reads, by the name of the argument; the run notes their sha256."""
        return {}

    def clustered_banks(self) -> list[FeatureBank]:
        """Memories whose rows are clustered; with none, `Recluster` embeds the images. Head h takes bank h mod A."""
        return []

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """What new clusters mean to the method.

        Args:
            clusterings: One a head, with the labels of all N training rows, equal on every process.
            seed: A number that is a function of the run's seed and the epoch, for whatever is drawn afresh.

        Raises:
            UsageError: For methods that do not learn from clusters.
        """
        raise UsageError(f"{type(self).__name__} does not learn from clusters: take Recluster out of trainer.callbacks")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Features of one batch of a probe set, for `ProbeFeatures`; of averaged weights too, where there are any."""
        images = batch.views[0]
        averaged = {"ema_features": self.embed(images, weights="ema")} if self.keeps_average else {}
        return {"index": batch.index, "features": self.embed(images), "label": batch.label} | averaged

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """The same as validation."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Features of one batch of the training images."""
        return {"index": batch.index, "features": self.embed(batch.views[0], self.predict_layer)}

    def configure_optimizers(self) -> Any:
        """One optimizer over all that can be learned, and its schedule if there is one."""
        if self.optimizer is None:
            raise UsageError(f"found {type(self).__name__} in fit; it has nothing to train: use validate or predict")
        groups = self.parameter_groups()
        optimizer = self.optimizer(groups if self.decay_all else without_decay(groups))
        if self.schedule is None:
            return optimizer
        total, per_epoch = self.steps()
        factor = partial(self.schedule, total_steps=total, steps_per_epoch=per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass, counted from the data: the trainer would build the loader to find out."""
        data = cast(CountsSteps, self.trainer.datamodule)  # type: ignore[attr-defined]  # Lightning sets it
        batches, limit = data.batches_per_epoch, self.trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)  # a number, or a share
        return max(1, -(-batches // self.trainer.accumulate_grad_batches))

    def steps(self) -> tuple[int, int]:
        """Optimizer steps of the run and of an epoch."""
        per_epoch = self.steps_per_epoch
        epochs, steps = self.trainer.max_epochs, self.trainer.max_steps
        bounds = [bound for bound in ((epochs or -1) * per_epoch, steps) if bound > 0]
        if not bounds:
            raise UsageError("found a schedule in a run without an end: give --trainer.max_epochs or max_steps")
        return min(bounds), per_epoch

    def parameter_groups(self) -> Iterable[Any]:
        """Parameters, or groups of them with options of their own."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def failures(self) -> list[Failure]:
        """How training is known to fail, for the doctor; methods add theirs, with suggestions for their settings.

        The signals are measured on what `training_step` returns beside "loss"; `DiagnosticSignals` lists the names.
        """
        groups = (group for optimizer in self.trainer.optimizers for group in optimizer.param_groups)
        rate = max(float(group.get("initial_lr", group["lr"])) for group in groups)  # that of the settings
        slower = f"a lower --model.optimizer.lr (now {rate:.2g}), or a longer --model.schedule.warmup_epochs"
        return [
            equal_embeddings(slower),
            rank_one(slower),
            unnormalized_inputs(
                f"--data.mean and --data.std of these images as fractions 0..1, now {self.mean} and {self.std}"
            ),
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say in plain values what this method was made of, so that reading needs no config and runs no code."""
        checkpoint["hyper_parameters"] = {
            "class_path": class_path(type(self)),
            "init_args": {name: self._described(name) for name in self.constructor_arguments},
        }
        # Lightning gives sharded modules nothing but parameters and buffers back; the tensors are written once
        checkpoint["memories"] = {name: memory.get_extra_state() for name, memory in _memories(self)}

    def _described(self, name: str) -> Any:
        """An argument of the constructor as plain values.

        Raises:
            TypeError: For an object that no configuration has described: a method made in Python takes plain values,
                frozen dataclasses, or arguments in `described_arguments`.
        """
        try:
            return to_plain(self.constructor_arguments[name])
        except TypeError:
            if name not in self.described_arguments:
                raise
            return self.described_arguments[name]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give a sharded module its memories back."""
        if self.device_mesh is not None:
            for name, memory in _memories(self):
                memory.set_extra_state(checkpoint["memories"][name])


def _memories(module: nn.Module) -> Iterator[tuple[str, PseudoLabels | FeatureBank | FeatureQueue]]:
    for name, child in module.named_modules():
        if isinstance(child, PseudoLabels | FeatureBank | FeatureQueue):
            yield name, child
