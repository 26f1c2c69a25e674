"""ImageModule: what every source of images shares - its loaders, views and probe sets - as one DataModule."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakSet

import torch
from jaxtyping import Float, Int
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.limits import DEFAULT_LIMITS, Limits
from ssl_lightning.data.loader import Labels, SequentialLoader, TrainingLoader, batches_per_epoch, too_many_unreadable
from ssl_lightning.data.probe_sets import ProbeSet
from ssl_lightning.data.reading import CropSpec, RankShard
from ssl_lightning.data.subset import Subset
from ssl_lightning.data.views import View, center_view, expand, finish_crops, make_views
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.types import Batch, RawBatch

log = logging.getLogger(__name__)
BEFORE_THE_FIRST = -1
"""The epoch of passes over all training views that are no training."""
RGB = tuple[float, float, float]
Probes = dict[str, tuple[ImageDataset, ImageDataset]]
"""Training and test images of each probe set."""
Loaders = list[SequentialLoader]


@dataclass(kw_only=True, eq=False)
class ImageModule(LightningDataModule, ABC):
    """The base of all sources of images. Making one reads no file; `setup` does.

    Args:
        views: Kinds of views that a training image is seen in, global crops first; empty for one plain `View`.
        batch_size: Rows of a training batch over all processes together, before accumulation.
        image_size: Side of a full-size view in pixels.
        mean: Mean of the images' channels, as fractions 0..1.
        std: Standard deviation of the images' channels, as fractions 0..1.
        seed: Of the order and of the views.
        num_workers: Processes that read images which do not lie in memory.
        drop_last: Leave out the last, incomplete batch of each epoch.
        subset: Only these rows of the training images, numbered afresh.
        probe_sets: Labelled splits to evaluate on, the first one the primary; null for the source's own.
        reference_images: Training rows of each probe set that are used while fitting; all are in validate and test.
        center_fraction: Side of the center view as a fraction of the image's short side.
        max_unreadable: Largest share of an epoch's rows that may be unreadable before the run stops.
        eval_batch_size: Rows of a batch of one process outside training.
        limits: What decoding one image may cost; an image that exceeds it counts as unreadable.
    """

    views: list[View] = field(default_factory=list)
    batch_size: int = 256
    image_size: int = 32
    mean: RGB = (0.5, 0.5, 0.5)
    std: RGB = (0.25, 0.25, 0.25)
    seed: int = 0
    num_workers: int = 2
    drop_last: bool = True
    subset: Subset | None = None
    probe_sets: dict[str, ProbeSet] | None = None
    reference_images: int = 10_000
    center_fraction: float = 1.0
    max_unreadable: float = 0.05
    eval_batch_size: int = 512
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        super().__init__()
        # a process may have no row of a small probe set
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._loader: TrainingLoader | None = None
        self._loaders: WeakSet[TrainingLoader | SequentialLoader] = WeakSet()
        self._labels: Labels = None
        for name, lowest in (("batch_size", 2), ("image_size", 1), ("num_workers", 0), ("reference_images", 1)):
            if getattr(self, name) < lowest:
                raise UsageError(f"found data.{name}={getattr(self, name)}; expected at least {lowest}")
        if min(self.std) <= 0:
            raise UsageError(f"found data.std={self.std}; expected three positive numbers, as fractions 0..1")
        if not 0 < self.center_fraction <= 1:
            raise UsageError(f"found data.center_fraction={self.center_fraction}; expected more than 0, at most 1")

    @abstractmethod
    def open_training(self) -> ImageDataset:
        """All images of the source that are for training, before `subset`."""

    @abstractmethod
    def default_probe_sets(self) -> Probes:
        """What the source is evaluated on unless `probe_sets` says otherwise; empty where it has no labels."""

    @cached_property
    def training(self) -> ImageDataset:
        """The training images of this run."""
        dataset = self.open_training()
        return dataset if self.subset is None else self.subset.of(dataset)

    @cached_property
    def probes(self) -> Probes:
        """Training and test images of each probe set, the primary one first."""
        if self.probe_sets is None:
            return self.default_probe_sets()
        return {name: probe_set.open(self.limits) for name, probe_set in self.probe_sets.items()}

    @property
    def num_samples(self) -> int:
        """N, the number of training images."""
        return len(self.training)

    @property
    def batches_per_epoch(self) -> int:
        """Training batches of one pass, before accumulation."""
        return batches_per_epoch(self.num_samples, self.batch_size, self.drop_last, self._shard.world_size)

    @property
    def num_views(self) -> int:
        """V, views of each image in a training batch."""
        return len(self._views)

    @property
    def num_classes(self) -> int:
        """Classes of the training images; 0 without labels."""
        return len(self.training.classes)

    @property
    def fingerprint(self) -> str:
        """Which training images there are, in which order, and what they hold."""
        return self.training.fingerprint

    def fingerprint_as(self, other: str | None) -> str:
        """The fingerprint to compare with one from a file, which may be from before content was read."""
        return self.training.fingerprint_as(other)

    @property
    def masked(self) -> int:
        """Images of this process that could not be read, so far in this epoch."""
        return self._loader.masked if self._loader else 0

    @property
    def masked_share(self) -> float:
        """Their share of the images that this process has met in this epoch."""
        return self._loader.masked_share if self._loader else 0.0

    def note_unreadable(self, rows: list[int]) -> None:
        """Say which training images a pass over all of them could not read.

        Args:
            rows: Of all processes.

        Raises:
            ValueError: They are more than `max_unreadable` allows, or all.
        """
        if not rows:
            return
        suggestion = f"{', '.join(self.training.name(row) for row in rows[:5])}, ...: fix or remove the files"
        if len(rows) > self.max_unreadable * self.num_samples or len(rows) == self.num_samples:
            where = f"a pass over {self.num_samples}"
            raise DataError(too_many_unreadable(len(rows), where, self.max_unreadable, suggestion))
        log.warning("found %d unreadable images of %d; among them %s", len(rows), self.num_samples, suggestion)

    def true_labels(self) -> Int[Tensor, "N"]:
        """The training images' own classes, for diagnostics; no self-supervised loss may see them."""
        return self.training.labels

    def setup(self, stage: str) -> None:
        """Open what the stage needs, so that a user's mistake ends the run before its first step."""
        if stage in ("fit", "predict"):
            _ = self.training
        if stage != "predict" and not self.probes and self.trainer is not None:
            # Lightning takes an empty list for one empty loader, and warns of it
            self.trainer.limit_val_batches = self.trainer.limit_test_batches = 0

    def teardown(self, stage: str) -> None:
        """Let the processes that read images end with the stage."""
        for loader in list(self._loaders):
            loader.end_workers()

    def on_exception(self, exception: BaseException) -> None:
        """The same where a stage ends badly."""
        self.teardown("fit")

    def set_labels(self, labels: Labels) -> None:
        """Draw the epochs that begin from now on uniformly over these clusters; None for the natural order.

        Raises:
            ValueError: Not one label a row.
        """
        if labels is not None:
            if len(labels) != self.num_samples:
                raise UsageError(f"found {len(labels)} labels for {self.num_samples} training rows; expected one each")
            labels = labels.detach().to("cpu", torch.int64, copy=True)
        self._labels = labels
        if self._loader is not None:
            self._loader.labels = labels

    def train_dataloader(self) -> TrainingLoader:
        """Batches of training rows, in an order that is a function of (seed, epoch)."""
        self._loader = TrainingLoader(
            self.training,
            CropSpec(self._views, self.image_size, self.seed),
            self.batch_size,
            self._shard,
            self.num_workers,
            self.drop_last,
            self.max_unreadable,
        )
        self._loader.labels = self._labels
        self._loaders.add(self._loader)
        return self._loader

    def val_dataloader(self) -> Loaders:
        """For each probe set its training rows (a reference set of them while fitting), then its test rows."""
        loaders = []
        for name, (train, _) in self.probes.items():
            loaders += self.probe_dataloaders(name, (self._reference_rows(len(train)), None))
        return loaders

    def probe_dataloaders(self, name: str, rows: Sequence[Int[Tensor, "_n"] | None] = (None, None)) -> Loaders:
        """The training and the test rows of a probe set.

        Args:
            name: Of the set.
            rows: Which of each split; None for all.
        """
        size = self.probe_size(name)
        return [self._sequential(split, size, own) for split, own in zip(self.probes[name], rows, strict=True)]

    def probe_size(self, name: str) -> int:
        """Side in pixels of the images of a probe set."""
        given = self.probe_sets[name].image_size if self.probe_sets else None
        return given or self.image_size

    def test_dataloader(self) -> Loaders:
        """The same as for validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> SequentialLoader:
        """All training rows in order, this process's contiguous block of them."""
        return self._sequential(self.training, self.image_size)

    def views_dataloader(self) -> SequentialLoader:
        """All training rows once, in a drawn order, this process's part of them, to be seen in training views."""
        crop_spec = CropSpec(self._views, self.image_size, self.seed)
        rows = permutation(self.seed, Purpose.ORDER, BEFORE_THE_FIRST, self.num_samples)
        loader = SequentialLoader(
            self.training, crop_spec, self.eval_batch_size, self._shard, self.num_workers, rows, BEFORE_THE_FIRST
        )
        self._loaders.add(loader)
        return loader

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> RawBatch:
        """Images go to the device; the rest stays, so that decisions about rows never wait for a GPU."""
        images = batch.images
        moved = [crops.to(device) for crops in images] if isinstance(images, list) else images.to(device)
        return batch._replace(images=moved)

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> Batch:
        """Random views while training, else the center view."""
        assert self.trainer is not None
        if self.trainer.training:
            assert self._loader is not None
            return self.augment(batch, self._loader.epoch)
        if self.trainer.predicting:
            return self.center(batch)
        return self.center(batch, self.probe_size(list(self.probes)[dataloader_idx // 2]))

    def augment(self, raw: RawBatch, epoch: int) -> Batch:
        """All views of the readable rows, normalized: a function of (seed, epoch, row, view)."""
        raw = _readable(raw)
        key = {"seed": self.seed, "epoch": epoch, "rows": raw.index}
        if isinstance(raw.images, list):
            crops = zip(raw.images, self._views, strict=True)
            made = [finish_crops(crop, view, number=number, **key) for number, (crop, view) in enumerate(crops)]
            return _batch(raw, [self._normalized_(view) for view in made])
        views: list[Tensor] = []
        for view in self._kinds:
            numbers = range(len(views), len(views) + view.count)
            made = make_views(raw.images, view, view.pixels(self.image_size), numbers=numbers, **key)
            views += self._normalized_(made).chunk(view.count)
        return _batch(raw, views)

    def center(self, raw: RawBatch, image_size: int | None = None) -> Batch:
        """The center view of the readable rows, normalized.

        Args:
            raw: From the predict loader or one of a probe set.
            image_size: Side in pixels; None for that of the data.
        """
        raw = _readable(raw)
        if isinstance(raw.images, list):  # the worker has cut it
            view = raw.images[0].float() / 255
        else:
            view = center_view(raw.images, image_size or self.image_size, self.center_fraction)
        return _batch(raw, [self._normalized_(view)])

    @property
    def _views(self) -> list[View]:
        return expand(self._kinds)

    @property
    def _kinds(self) -> list[View]:
        return self.views or [View()]

    @property
    def _shard(self) -> RankShard:
        return RankShard(self.trainer.global_rank, self.trainer.world_size) if self.trainer else RankShard()

    def _sequential(self, dataset: ImageDataset, size: int, rows: Int[Tensor, "M"] | None = None) -> SequentialLoader:
        found, processes = len(dataset) if rows is None else len(rows), self._shard.world_size
        if 1 < processes > found:  # a process without a batch would leave the others waiting
            raise UsageError(
                f"found {found} images for {processes} processes; expected one for each process at least: give "
                f"--trainer.devices {max(1, found)}, or more images"
            )
        crop_spec = CropSpec([], size, self.seed, self.center_fraction)
        loader = SequentialLoader(dataset, crop_spec, self.eval_batch_size, self._shard, self.num_workers, rows)
        self._loaders.add(loader)
        return loader

    def _reference_rows(self, count: int) -> Int[Tensor, "M"] | None:
        if self.trainer is None or self.trainer.state.fn != "fit" or count <= self.reference_images:
            return None
        return permutation(self.seed, Purpose.REFERENCE, 0, count)[: self.reference_images].sort().values

    def _normalized_(self, view: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """By the values of the model, which travel in its checkpoint; in place, for the view was just made."""
        owner = self.trainer.lightning_module if self.trainer else self
        mean, std = (
            torch.as_tensor(getattr(owner, name, getattr(self, name)), dtype=view.dtype, device=view.device).view(
                3, 1, 1
            )
            for name in ("mean", "std")
        )
        return view.sub_(mean).div_(std)


def _readable(raw: RawBatch) -> RawBatch:
    if bool(raw.valid.all()):
        return raw
    rows = raw.valid.nonzero().flatten()
    index, label, valid = (
        tensor.index_select(0, rows.to(tensor.device)) for tensor in (raw.index, raw.label, raw.valid)
    )
    if isinstance(raw.images, list):
        return RawBatch(index, [crops.index_select(0, rows.to(crops.device)) for crops in raw.images], label, valid)
    return RawBatch(index, raw.images.index_select(0, rows.to(raw.images.device)), label, valid)


def _batch(raw: RawBatch, views: list[Float[Tensor, "B 3 _h _w"]]) -> Batch:
    device = views[0].device
    return Batch(raw.index.to(device, non_blocking=True), views, raw.label.to(device, non_blocking=True))
