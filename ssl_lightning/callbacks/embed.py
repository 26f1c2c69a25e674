"""One pass over the training images: every process its own rows, or all of them without a trainer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from tqdm import tqdm

from ssl_lightning.callbacks.publish import publish
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.processes import gather_rows, share_buffers, world
from ssl_lightning.sample_state import FeatureBank
from ssl_lightning.types import Batch, RawBatch, Weights

BEFORE_THE_FIRST = -1
"""The epoch whose views fill a memory."""


@runtime_checkable
class Embeds(Protocol):
    """What the pass needs of a method."""

    def embed(
        self, images: Float[Tensor, "B 3 h w"], layer: str | None = None, weights: Weights = "online"
    ) -> Float[Tensor, "B D"]:
        """Features of normalized images."""
        ...


@runtime_checkable
class ServesImages(Protocol):
    """What the pass needs of the data."""

    num_samples: int

    def predict_dataloader(self) -> Iterable[RawBatch]:
        """This process's block of the training images, in row order."""
        ...

    def center(self, raw: RawBatch) -> Batch:
        """One center view of each readable image."""
        ...

    def note_unreadable(self, rows: list[int]) -> None:
        """Say which rows could not be read; reject too many."""
        ...


@runtime_checkable
class EmbedsViews(Protocol):
    """What filling a memory needs of a method."""

    def embed_views(self, views: list[Float[Tensor, "B 3 _h _w"]]) -> list[Float[Tensor, "B D"]]:
        """Unit embeddings of each view."""
        ...


@runtime_checkable
class ServesViews(Protocol):
    """What filling a memory needs of the data."""

    num_samples: int

    def views_dataloader(self) -> Iterable[RawBatch]:
        """This process's part of the training images in a drawn order, every row once."""
        ...

    def augment(self, raw: RawBatch, epoch: int) -> Batch:
        """The training views of an epoch."""
        ...


def embed_dataset(
    trainer: pl.Trainer, module: pl.LightningModule, layer: str | None = None
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """Features of the center views in eval mode; weights and random state stay as they are.

    Buffers of all processes are those of the first, see `share_buffers`.

    Returns:
        Rows of this process that have features, ascending, and their features, both on the device of the module.

    Raises:
        ValueError: If more images of all processes are unreadable than the data allow.
    """
    data = cast(ServesImages, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning when fitting
    share_buffers(module)
    with trainer.precision_plugin.forward_context():
        rows, features, unreadable = _embed(_with_progress(trainer, data.predict_dataloader()), data, module, layer)
    everywhere = gather_rows(unreadable.to(rows.device), world()).tolist()
    if everywhere and trainer.state.fn == "fit":
        count = len(everywhere)
        publish(trainer, {"data/masked": float(count), "data/masked_share": count / data.num_samples})
    data.note_unreadable(everywhere)
    return rows, features


def fill_banks(trainer: pl.Trainer, module: pl.LightningModule, banks: list[FeatureBank]) -> None:
    """Give every row of each bank the embedding of one training view of its image, bank a that of view a.

    The views are those of an epoch before the first, in a drawn order; the network is in training mode, so untrained
    networks normalize by their batches, but its running statistics, weights and random state stay as they are.
    """
    data, method = cast(ServesViews, trainer.datamodule), cast(EmbedsViews, module)  # type: ignore[attr-defined]
    rows: list[Tensor] = []
    embeddings: list[list[Tensor]] = [[] for _ in banks]
    loader = _with_progress(trainer, data.views_dataloader(), "Filling the memory")
    with trainer.precision_plugin.forward_context(), isolate_rng(), torch.no_grad(), untracked(module):
        for raw in loader:
            batch = data.augment(module.transfer_batch_to_device(raw, module.device, 0), BEFORE_THE_FIRST)
            rows.append(batch.index)
            views = method.embed_views(batch.views[: len(banks)])
            for seen, view in zip(embeddings, views, strict=True):
                seen.append(view.float())
    index = gather_rows(torch.cat(rows), world())
    valid = torch.zeros(data.num_samples, dtype=torch.bool, device=index.device)
    valid[index] = True
    for bank, seen in zip(banks, embeddings, strict=True):
        own = gather_rows(torch.cat(seen), world())
        every = own.new_zeros(data.num_samples, own.shape[1])
        every[index] = own
        bank.fill(every, valid)


def embed_images(
    module: pl.LightningModule,
    data: Any,
    layer: str | None = None,
    progress: bool = True,
    weights: Weights = "online",
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """The same without a trainer, in full precision on the device of the module: for notebooks and scripts.

    Args:
        module: A method, for example from `ssl_lightning.load_model`.
        data: A data module with the images' size, mean and standard deviation of the module.
        layer: One of `module.layers`; None for the first.
        progress: Show a bar.
        weights: "ema" for the averaged weights of methods that have them.

    Returns:
        Rows that could be read, ascending, and their features, on the CPU.

    Raises:
        ValueError: If the data are prepared in another way than those that the module was trained on.
    """
    for name in ("image_size", "mean", "std"):
        found, trained = getattr(data, name), getattr(module, name)
        if not torch.equal(torch.tensor(found), torch.tensor(trained)):
            raise UsageError(f"found data.{name}={found} for a model trained with {trained}; make the data with that")
    loader = tqdm(data.predict_dataloader(), desc="Features", leave=False, disable=not progress, unit="batch")
    try:
        rows, features, _ = _embed(loader, data, module, layer, weights)
    finally:
        data.teardown("predict")  # ends the processes that read images
    return rows.cpu(), features.cpu()


def _embed(
    loader: tqdm, data: ServesImages, module: pl.LightningModule, layer: str | None, weights: Weights = "online"
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"], Int[Tensor, "u"]]:
    """Rows, their features, and the rows that could not be read. Features are there once: they may fill the memory.

    Raises:
        DataError: If there are no images.
    """
    method, group = cast(Embeds, module), world()
    most = -(-data.num_samples // (1 if group is None else group.size()))
    rows, unreadable, features, count = [], [], torch.empty(0, 0), 0
    with isolate_rng(), torch.no_grad(), eval_mode(module):
        for raw in loader:
            unreadable.append(raw.index[~raw.valid])
            batch = data.center(module.transfer_batch_to_device(raw, module.device, 0))
            seen = method.embed(batch.views[0], layer, weights)
            if not rows:
                features = torch.empty(most, seen.shape[1], dtype=torch.float32, device=seen.device)
            features[count : count + len(seen)] = seen
            rows.append(batch.index)
            count += len(seen)
    if not rows:
        raise DataError("found no images to embed; expected one at least: check the data section")
    return torch.cat(rows), features[:count], torch.cat(unreadable)


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Training mode for a while, in which normalization layers use their batch and remember nothing of it."""
    before = {part: part.training for part in module.modules()}
    layers = [part for part in module.modules() if getattr(part, "track_running_stats", False)]
    module.train()
    for layer in layers:
        layer.track_running_stats = False  # type: ignore[assignment]  # torch types attributes of modules as modules
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True  # type: ignore[assignment]
        for part, training in before.items():
            part.training = training


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while; each part gets back the mode that it had, frozen parts too."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _with_progress(
    trainer: pl.Trainer, loader: Any, what: str = "Features to cluster"
) -> tqdm:  # of RawBatch; a checker of items would read one
    bar = trainer.progress_bar_callback
    hidden = bar is None or getattr(bar, "is_disabled", False) or not trainer.is_global_zero
    return tqdm(loader, desc=what, leave=False, disable=hidden, unit="batch")
