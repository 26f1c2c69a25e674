"""Method: what every learning method has. The only base class of the methods."""

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from jaxtyping import Float, UInt8
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ssl_lightning.checkpoints.describe import constructor_arguments, describe
from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.rows import reject_few_rows
from ssl_lightning.contracts import data_of, has_training_data
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, equal_embeddings, rank_one, unnormalized_inputs
from ssl_lightning.methods import checks
from ssl_lightning.models.backbones import Backbone
from ssl_lightning.models.layers import at_layer, layers_of
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.models.sharded import shard
from ssl_lightning.optim.exclusion import without_decay
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.optim.steps import check_groups, highest_rate, steps_per_epoch, steps_per_run, with_schedule
from ssl_lightning.sample_state import FeatureBank, sample_states
from ssl_lightning.types import Batch, Weights


class Method(pl.LightningModule):
    """A backbone, how to embed an image with it, and what callbacks and checkpoints use of a method.

    A concrete method adds its constructor (which is its configuration), `training_step`, and `on_reclustered` if it
    learns from pseudo-labels. State that belongs to training rows is kept in `ssl_lightning.sample_state`, so that
    checkpoints hold all of it. What a step changes besides parameters is written in `on_after_backward`: a checkpoint
    is written after the step, before `LightningModule.on_train_batch_end`.

    Args:
        backbone: Description of the network.
        optimizer: Parameters or parameter groups to an optimizer; None for methods that do not train.
        schedule: Of the learning rate of every parameter group, in steps; None keeps it constant.
        preprocessing: Image size and normalization of the run; it is stored in the checkpoint.
        in_channels: Input channels of the backbone: 3, or 2 behind a Sobel stem.
        decay_all: Give weight decay (and the adaptation of LARS) to biases and normalization layers too.
    """

    num_clusters: int | None = None
    """K of each clustering; None for methods without pseudo-labels."""
    num_heads: int = 1
    """H, the number of clusterings."""
    constructor_arguments: dict[str, Any]
    """Arguments of the concrete constructor, defaults included."""
    described_arguments: dict[str, Any]
    """The same as the configuration describes them, for arguments that are no plain values."""
    min_views: int = 1
    """Views of an image that a training step needs."""
    chance_loss: float | None = None
    """The loss of predictions that are the same for every image, where it is known: mostly ln K."""
    micro_batch_effect: str = ""
    """What gradient accumulation does to the loss beyond averaging it; empty for nothing."""
    predict_layer: str | None = None
    """Which of `layers` `predict` embeds with; None for the first."""
    fingerprint: str = ""
    """SHA-256 of the checkpoint that the weights come from; empty for a new network."""
    data_fingerprint: str = ""
    """Fingerprint of the training images of a method from a checkpoint, where it is known."""
    per_sample_buffers: tuple[str, ...] = ()
    """Buffers that are functions of the training rows, as memory banks are, and do not apply to other images."""
    warmup_epochs: int = 0
    """Epochs before the first clustering."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Method":
        """Record the arguments of the concrete constructor."""
        method = super().__new__(cls)
        object.__setattr__(method, "constructor_arguments", constructor_arguments(cls, *args, **kwargs))
        object.__setattr__(method, "described_arguments", {})
        return method

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable | None,
        schedule: Schedule | None,
        preprocessing: Preprocessing,
        in_channels: int = 3,
        decay_all: bool = True,
    ) -> None:
        super().__init__()
        self.optimizer, self.schedule, self.decay_all = optimizer, schedule, decay_all
        self.backbone, self.preprocessing = backbone.build(in_channels), preprocessing

    def normalize(self, images: UInt8[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """Images to the input of `embed`, by the mean and standard deviation of the run."""
        return self.preprocessing.normalize(images)

    def configure_model(self) -> None:
        """Shard the parameters where the strategy requires it (`ModelParallelStrategy`)."""
        if self.device_mesh is not None:
            for child in self.children():
                shard(child, self.device_mesh["data_parallel"])

    @property
    def layers(self) -> tuple[str, ...]:
        """Names that `embed(layer=...)` takes, the default first; those of `projector` where there is one."""
        return layers_of(getattr(self, "projector", None))

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Normalized images to the backbone's features."""
        return self.backbone(images)

    def embed(
        self, images: Float[Tensor, "B 3 h w"], layer: str | None = None, weights: Weights = "online"
    ) -> Float[Tensor, "B D"]:
        """Features of normalized images, in float32.

        Args:
            images: From `normalize`, or the views of a batch.
            layer: One of `layers`; None for the first.
            weights: "ema" for the averaged weights of methods that have them.
        """
        if layer not in (None, *self.layers):
            raise UsageError(f"found layer={layer!r}; {type(self).__name__} has {', '.join(self.layers)}")
        features = self.features if weights == "online" else self.averaged_features
        return features(images, layer or self.layers[0]).float()

    def features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """The output of one of `layers`, for `embed`."""
        return at_layer(layer, self(images), getattr(self, "projector", None))

    def averaged_features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """The same with the averaged weights, for methods that have them."""
        raise UsageError(f"found weights='ema'; {type(self).__name__} keeps no averaged weights: use 'online'")

    @property
    def keeps_average(self) -> bool:
        """Whether there are averaged weights beside the online ones; they are evaluated too, as `eval_ema/...`."""
        return type(self).averaged_features is not Method.averaged_features

    def setup(self, stage: str) -> None:
        """Validate the precision and the strategy of the trainer, and the sizes, images and views of the data."""
        name, data = type(self).__name__, data_of(self.trainer) if has_training_data(self.trainer) else None
        checks.reject_precision(self.trainer.precision)
        checks.reject_strategy(self.trainer.strategy, name, self.keeps_average, self._learns_from_clusters)
        checks.reject_sizes(self.backbone, self.constructor_arguments, data, stage)
        if stage == "fit" and data is not None:
            self.reject_few(data.num_samples)
            checks.reject_views(data.num_views, name, self.min_views)
            checks.warn_of_micro_batches(self.trainer.accumulate_grad_batches, self.micro_batch_effect)

    def reject_few(self, num_samples: int) -> None:
        """Reject fewer training images than the method needs: than clusters, for methods that learn from those."""
        if self._learns_from_clusters:
            reject_few_rows(num_samples, self.num_clusters or 0)

    @property
    def _learns_from_clusters(self) -> bool:
        return type(self).on_reclustered is not Method.on_reclustered

    def stage_files(self) -> dict[str, str]:
        """Files of earlier stages by the name of the argument; the run records their SHA-256."""
        return {}

    def clustered_banks(self) -> list[FeatureBank]:
        """Memory banks to cluster; with none, `Recluster` embeds the images. Head h takes bank h mod A."""
        return []

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Take new clusters.

        Args:
            clusterings: One for each head, with the labels of all N training rows, equal on every process.
            seed: A function of the run's seed and the epoch, for what is initialized anew.
        """
        raise UsageError(f"{type(self).__name__} does not learn from clusters: take Recluster out of trainer.callbacks")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Features of one batch of a probe set, for `ProbeFeatures`; of averaged weights too, where there are any."""
        images = batch.views[0]
        averaged = {"ema_features": self.embed(images, weights="ema")} if self.keeps_average else {}
        return {"index": batch.index, "features": self.embed(images), "label": batch.label} | averaged

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """See `validation_step`."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Features of one batch of the training images."""
        return {"index": batch.index, "features": self.embed(batch.views[0], self.predict_layer)}

    def configure_optimizers(self) -> Any:
        """One optimizer over all trainable parameters, and its schedule if there is one."""
        if self.optimizer is None:
            raise UsageError(f"found {type(self).__name__} in fit; it has nothing to train: use validate or predict")
        groups = self.parameter_groups()
        optimizer = self.optimizer(groups if self.decay_all else without_decay(groups))
        check_groups(optimizer)
        return optimizer if self.schedule is None else with_schedule(optimizer, self.schedule, *self.steps())

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch, from the data: the trainer would build the loader to count them."""
        batches, trainer = data_of(self.trainer).batches_per_epoch, self.trainer
        return steps_per_epoch(batches, trainer.limit_train_batches, trainer.accumulate_grad_batches)

    def steps(self) -> tuple[int, int]:
        """Optimizer steps of the run and of an epoch."""
        per_epoch = self.steps_per_epoch
        return steps_per_run(per_epoch, self.trainer.max_epochs, self.trainer.max_steps), per_epoch

    def parameter_groups(self) -> Iterable[Any]:
        """Parameters, or groups of them with options of their own."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def failures(self) -> list[Failure]:
        """Known failures of training with suggestions; `DiagnosticSignals` measures them on what a step returns."""
        rate, used = highest_rate(self.trainer.optimizers), self.preprocessing
        slower = f"a lower --model.optimizer.lr (now {rate:.2g}), or a longer --model.schedule.warmup_epochs"
        normalize = f"--data.mean and --data.std of these images as fractions 0..1, now {used.mean} and {used.std}"
        return [equal_embeddings(slower), rank_one(slower), unnormalized_inputs(normalize)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the method in plain values, so that reading needs no config and runs no code."""
        checkpoint["hyper_parameters"] = describe(type(self), self.constructor_arguments, self.described_arguments)
        # Lightning restores only parameters and buffers of sharded modules; the tensors are written once
        checkpoint["per_sample_state"] = {name: state.get_extra_state() for name, state in sample_states(self)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the per-sample state of a sharded module."""
        if self.device_mesh is not None:
            for name, state in sample_states(self):
                state.set_extra_state(checkpoint["per_sample_state"][name])
