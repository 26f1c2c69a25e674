"""ImageModule: the loaders and probe sets that every source of images has, as one data module."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal
from weakref import WeakSet

import torch
from jaxtyping import Int
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ssl_lightning.contracts import SourceReport, TrainingData
from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.data.balance import Balance, described
from ssl_lightning.data.batches import BatchMaker
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.intensity import IntensityWindow
from ssl_lightning.data.limits import DEFAULT_LIMITS, Limits
from ssl_lightning.data.loader import Labels, SequentialLoader, TrainingLoader, batches_per_epoch
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.order import BLOCKS, Blocks
from ssl_lightning.data.probe_sets import ProbeSet, described_probe_sets, joined_by_name
from ssl_lightning.data.reading import CropSpec, RankShard
from ssl_lightning.data.source_checks import SourceChecks, check_normalization
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.data.subset import Subset
from ssl_lightning.data.views import View, expand
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.models.preprocessing import RGB, Preprocessing
from ssl_lightning.processes import gather_rows, rank, world
from ssl_lightning.types import UNLABELLED, Batch, RawBatch

log = logging.getLogger(__name__)
BEFORE_THE_FIRST = -1
"""The epoch of the views that fill memory banks before training."""
LOADER_ARGUMENTS = (
    *("views", "batch_size", "seed", "num_workers", "drop_last", "reference_images", "center_fraction"),
    *("max_unreadable", "eval_batch_size", "subset", "balance", "order", "blocks"),
)
"""Arguments of `ImageModule` that belong to the recipe of a method or to the loader, and survive another source."""
LARGEST_IMAGE = 10_000
"""Side in pixels; a batch of larger images would not fit into the memory of any machine."""
_LOWEST = {"batch_size": 2, "image_size": 1, "num_workers": 0, "reference_images": 1, "eval_batch_size": 1}
"""Smallest value of each number."""
Probes = dict[str, tuple[ImageDataset, ImageDataset]]
"""Training and test images of each probe set."""
Loaders = list[SequentialLoader]


@dataclass(kw_only=True, eq=False)
class ImageModule(LightningDataModule, TrainingData, ABC):
    """The base of all sources of images. The constructor reads no file; `setup` does.

    Args:
        views: Kinds of training views, global crops first; empty for one plain `View`.
        batch_size: Rows of a training batch over all processes together, before accumulation.
        image_size: Side of a full-size view in pixels.
        mean: Mean of the images' channels, as fractions 0..1.
        std: Standard deviation of the images' channels, as fractions 0..1.
        seed: Of the order and of the views.
        num_workers: Processes that read images which are not in memory.
        drop_last: Leave out the last, incomplete batch of each epoch.
        subset: Only these rows of the training images, renumbered from 0.
        balance: Sample every epoch evenly over the clusters of a file.
        probe_sets: Labeled splits for evaluation, the primary one first; null for those of the source.
        reference_images: Training rows of each probe set in `fit`; `validate` and `test` take all.
        center_fraction: Side of the center view as a fraction of the image's short side.
        max_unreadable: Largest share of an epoch's rows that may be unreadable before the run stops.
        eval_batch_size: Rows of a batch of one process outside training.
        limits: What decoding one image may cost; an image that exceeds it counts as unreadable.
        include: Globs: only files that match one of them are images. A glob with a slash applies to the path within
            `path`, else to the file name. Hidden files and folders of systems need a glob that writes out their name.
        exclude: Globs: files that match one of them are no images.
        order: Order of the training images in an epoch: `full` is random over all of them. `blocks` reads from a few
            blocks of consecutive images at a time, for stores and disks that are slow at single images.
        blocks: Size of the blocks, and how many are shuffled together.
        intensity_window: For gray images of more than 8 bits: the values [low, high] that become black and white, or
            "minmax" or "percentile" (1 and 99) of each image; null for the full range of 12 or 16 bits. Signed, 32-bit
            and floating-point values need a window.
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
    balance: Balance | None = None
    probe_sets: dict[str, ProbeSet] | None = None
    reference_images: int = 10_000
    center_fraction: float = 1.0
    max_unreadable: float = 0.05
    eval_batch_size: int = 512
    limits: Limits = DEFAULT_LIMITS
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    order: Literal["full", "blocks"] = "full"
    blocks: Blocks = Blocks()  # noqa: RUF009  # an immutable pair of numbers
    intensity_window: IntensityWindow = None

    def __post_init__(self) -> None:
        super().__init__()
        # a process may have no row of a small probe set
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._loader: TrainingLoader | None = None
        self._loaders: WeakSet[TrainingLoader | SequentialLoader] = WeakSet()
        self._sampled_over: Labels = None
        self._probe_loaders: Loaders = []
        self._checks = SourceChecks(self.max_unreadable)
        for name, lowest in _LOWEST.items():
            if getattr(self, name) < lowest:
                raise UsageError(f"found data.{name}={getattr(self, name)}; expected at least {lowest}")
        if self.image_size > LARGEST_IMAGE:
            raise UsageError(f"found data.image_size={self.image_size}; expected at most {LARGEST_IMAGE} pixels")
        check_normalization(self.mean, self.std)
        if not 0 < self.center_fraction <= 1:
            raise UsageError(f"found data.center_fraction={self.center_fraction}; expected more than 0, at most 1")
        if not 0 <= self.max_unreadable <= 1:
            raise UsageError(
                f"found data.max_unreadable={self.max_unreadable}; expected a fraction 0..1: 5 percent is 0.05"
            )
        for name in self.probe_sets or {}:
            if not name or "/" in name:
                raise UsageError(f"found a probe set named {name!r}; expected a name without a slash: metrics have it")
        _ = self.source_options  # which checks the window
        self._batches = self._batch_maker(self.preprocessing)

    @abstractmethod
    def open_training(self) -> ImageDataset:
        """All images of the source that are for training, before `subset`."""

    @abstractmethod
    def default_probe_sets(self) -> Probes:
        """The probe sets of the source without `probe_sets`; empty where it has no labels."""

    @cached_property
    def training(self) -> ImageDataset:  # type: ignore[override]  # a property that is computed once
        """See `TrainingData.training`."""
        dataset = self.open_training()
        return dataset if self.subset is None else self.subset.of(dataset)

    @property
    def is_balanced(self) -> bool:
        """See `TrainingData.is_balanced`."""
        return self.balance is not None

    @cached_property
    def _clusters(self) -> Labels:
        """The clusters of `balance`, which are logged once."""
        if self.balance is None:
            return None
        labels = self.balance.labels_of(self.training)
        if rank() == 0:
            log.info("%s", described(self.balance, labels, self.num_samples))
        return labels

    @cached_property
    def probes(self) -> Probes:  # type: ignore[override]
        """See `TrainingData.probes`."""
        found = self.default_probe_sets() if self.probe_sets is None else self._given_probe_sets(self.probe_sets)
        return {name: joined_by_name(name, *pair) for name, pair in found.items()}

    def _given_probe_sets(self, given: dict[str, ProbeSet]) -> Probes:
        if rank() == 0:
            log.info("%s", described_probe_sets(given, self.evaluated_as))
        return {name: probe_set.open(self.source_options) for name, probe_set in given.items()}

    @property
    def source_options(self) -> SourceOptions:
        """How the files of the source are chosen and decoded."""
        return SourceOptions(self.limits, Selection(tuple(self.include), tuple(self.exclude)), self.intensity_window)

    @property
    def evaluated_as(self) -> list[str]:
        """The paths or names by which a probe set refers to the images of this source."""
        return []

    @property
    def num_samples(self) -> int:
        """See `TrainingData.num_samples`."""
        return len(self.training)

    @property
    def batches_per_epoch(self) -> int:
        """See `TrainingData.batches_per_epoch`."""
        return batches_per_epoch(self.num_samples, self.batch_size, self.drop_last, self._shard.world_size)

    @property
    def num_views(self) -> int:
        """See `TrainingData.num_views`."""
        return len(self._views)

    @property
    def num_classes(self) -> int:
        """Classes of the training images; 0 without labels."""
        return len(self.training.classes)

    @property
    def fingerprint(self) -> str:
        """See `TrainingData.fingerprint`."""
        return self.training.fingerprint

    def fingerprint_as(self, other: str | None) -> str:
        """See `TrainingData.fingerprint_as`."""
        return self.training.fingerprint_as(other)

    @property
    def masked(self) -> int:
        """See `TrainingData.masked`."""
        return self._loader.masked if self._loader else 0

    @property
    def masked_share(self) -> float:
        """See `TrainingData.masked_share`."""
        return self._loader.masked_share if self._loader else 0.0

    @property
    def loading_seconds(self) -> float:
        """See `TrainingData.loading_seconds`."""
        return self._loader.seconds if self._loader else 0.0

    def note_unreadable(self, rows: list[int]) -> None:
        """See `TrainingData.note_unreadable`.

        Raises:
            DataError: For more rows of all processes than `max_unreadable` allows, or all rows.
        """
        self._checks.note(rows, self.training, self.num_samples, "training images")

    def note_unreadable_in_probe_sets(self) -> int:
        """See `TrainingData.note_unreadable_in_probe_sets`.

        Raises:
            DataError: For more rows of a split than `max_unreadable` allows, or all rows.
        """
        assert self.trainer is not None
        device, total = self.trainer.strategy.root_device, 0
        for (name, dataset), loader in zip(self._splits(), self._probe_loaders, strict=True):
            own = torch.tensor(loader.unreadable, dtype=torch.int64, device=device)
            rows = gather_rows(own, world()).tolist()
            self._checks.note(rows, dataset, loader.count, name)
            total += len(rows)
        return total

    def _splits(self) -> list[tuple[str, ImageDataset]]:
        """Description and images of both splits of each probe set."""
        return [
            (f"images of the {kind} split of probe set {name}", split)
            for name, pair in self.probes.items()
            for kind, split in zip(("train", "test"), pair, strict=True)
        ]

    @property
    def source_reports(self) -> list[SourceReport]:
        """See `TrainingData.source_reports`; each source once."""
        if self._loader is not None:
            self._checks.remember(self._loader.unreadable, self.training)
        return self._checks.reports([self.training, *(split for _, split in self._splits())])

    @property
    def labels(self) -> Int[Tensor, "N"]:
        """See `TrainingData.labels`."""
        return self.training.labels

    @property
    def class_sizes(self) -> dict[str, int]:
        """See `TrainingData.class_sizes`; empty where the images are not found, which `validate` does not need."""
        try:
            labels, classes = self.training.labels, self.training.classes
        except DataError:
            return {}
        counts = labels[labels != UNLABELLED].bincount(minlength=len(classes)).tolist()
        return dict(zip(classes, counts, strict=True)) if classes else {}

    @property
    def preprocessing(self) -> Preprocessing:
        """See `TrainingData.preprocessing`."""
        return Preprocessing(self.image_size, self.mean, self.std)

    def image_sizes(self, stage: str) -> list[int]:
        """See `TrainingData.image_sizes`."""
        views = [view.pixels(self.image_size) for view in self._kinds] if stage == "fit" else []
        probes = [] if stage == "predict" else [self.probe_size(name) for name in self.probes]
        return list(dict.fromkeys([*views, *probes, *([self.image_size] if stage in ("fit", "predict") else [])]))

    def setup(self, stage: str) -> None:
        """Open what the stage needs, so that a user's mistake ends the run before its first step.

        From here on views are normalized by the mean and standard deviation of the method, which its checkpoint holds.
        """
        module = self.trainer.lightning_module if self.trainer is not None else None
        own = getattr(module, "preprocessing", None)
        self._batches = self._batch_maker(own if isinstance(own, Preprocessing) else self.preprocessing)
        if stage == "fit":
            _ = self._clusters  # which reads the file
        training = [("training images", self.training)] if stage in ("fit", "predict") else []
        self._checks.report(training + (self._splits() if stage != "predict" else []))
        if stage != "predict" and not self.probes and self.trainer is not None:
            # Lightning takes an empty list for one empty loader, and warns of it
            self.trainer.limit_val_batches = self.trainer.limit_test_batches = 0

    def teardown(self, stage: str) -> None:
        """See `TrainingData.teardown`."""
        for loader in list(self._loaders):
            loader.end_workers()

    def on_exception(self, exception: BaseException) -> None:
        """End the worker processes after an error too."""
        self.teardown("fit")

    def set_labels(self, labels: Labels) -> None:
        """See `TrainingData.set_labels`; it takes effect from the next epoch on.

        Raises:
            UsageError: For another number of labels than training images, or beside `balance`.
        """
        if self.balance is not None:
            raise UsageError(
                f"found data.balance={self.balance.path} and a method that balances over its own clusters; expected "
                "one of them: leave out data.balance, or give DeepCluster --model.sampler natural"
            )
        if labels is not None:
            if len(labels) != self.num_samples:
                raise UsageError(f"found {len(labels)} labels for {self.num_samples} training rows; expected one each")
            labels = labels.detach().to("cpu", torch.int64, copy=True)
        self._sampled_over = labels
        if self._loader is not None:
            self._loader.labels = labels

    def train_dataloader(self) -> TrainingLoader:
        """Batches of training rows in an order that is a function of (seed, epoch)."""
        if self.order == BLOCKS:
            log.info(
                "order of an epoch: blocks of %d consecutive images, %d shuffled together",
                *(self.blocks.rows, self.blocks.window),
            )
        self._loader = TrainingLoader(
            self.training,
            CropSpec(self._views, self.image_size, self.seed),
            self.batch_size,
            self._shard,
            self.num_workers,
            self.drop_last,
            self.max_unreadable,
            self.blocks if self.order == BLOCKS else None,
        )
        self._loader.labels = self._sampled_over
        if self.balance is not None:
            self._loader.keep_labels(self._clusters, self.balance.power)
        self._loaders.add(self._loader)
        return self._loader

    def val_dataloader(self) -> Loaders:
        """For each probe set its training rows (a subset of them in `fit`), then its test rows."""
        loaders = []
        for name, (train, _) in self.probes.items():
            loaders += self.probe_dataloaders(name, (self._reference_rows(len(train)), None))
        self._probe_loaders = loaders
        return loaders

    def probe_dataloaders(self, name: str, rows: Sequence[Int[Tensor, "_n"] | None] = (None, None)) -> Loaders:
        """The training and the test rows of a probe set.

        Args:
            name: Its name.
            rows: Rows of each split; None for all.
        """
        size = self.probe_size(name)
        return [self._sequential(split, size, own) for split, own in zip(self.probes[name], rows, strict=True)]

    def probe_size(self, name: str) -> int:
        """Side in pixels of the images of a probe set."""
        given = self.probe_sets[name].image_size if self.probe_sets else None
        return given or self.image_size

    def test_dataloader(self) -> Loaders:
        """See `val_dataloader`."""
        return self.val_dataloader()

    def predict_dataloader(self, rows: Int[Tensor, "M"] | None = None) -> SequentialLoader:
        """See `TrainingData.predict_dataloader`."""
        return self._sequential(self.training, self.image_size, rows)

    def views_dataloader(self) -> SequentialLoader:
        """See `TrainingData.views_dataloader`."""
        crop_spec = CropSpec(self._views, self.image_size, self.seed)
        rows = permutation(self.seed, Purpose.ORDER, BEFORE_THE_FIRST, self.num_samples)
        loader = SequentialLoader(
            self.training, crop_spec, self.eval_batch_size, self._shard, self.num_workers, rows, BEFORE_THE_FIRST
        )
        self._loaders.add(loader)
        return loader

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> RawBatch:
        """Images move to the device; the rest stays, so that decisions about rows never wait for a GPU."""
        images = batch.images
        moved = [crops.to(device) for crops in images] if isinstance(images, list) else images.to(device)
        return batch._replace(images=moved)

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> Batch:
        """Random views in training, the center view in evaluation and prediction."""
        assert self.trainer is not None
        if self.trainer.training:
            assert self._loader is not None
            return self.augment(batch, self._loader.epoch)
        if self.trainer.predicting:
            return self.center(batch)
        return self.center(batch, self.probe_size(list(self.probes)[dataloader_idx // 2]))

    def augment(self, raw: RawBatch, epoch: int) -> Batch:
        """See `BatchMaker.augment`."""
        return self._batches.augment(raw, epoch)

    def center(self, raw: RawBatch, image_size: int | None = None) -> Batch:
        """See `BatchMaker.center`."""
        return self._batches.center(raw, image_size)

    def _batch_maker(self, normalization: Preprocessing) -> BatchMaker:
        """Views of the image size of the data, normalized as given."""
        preprocessing = replace(normalization, image_size=self.image_size)
        return BatchMaker(self._kinds, preprocessing, self.seed, self.center_fraction)

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
        if 1 < processes > found:  # the others would wait for a process without a batch
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
