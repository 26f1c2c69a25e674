"""Features of all training images in one pass: each process its own rows, or all of them without a trainer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from ssl_lightning.callbacks.publish import publish
from ssl_lightning.contracts import TrainingData, data_of
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.processes import gather_rows, scatter_rows, share_buffers, world
from ssl_lightning.progress import progress as shown_progress
from ssl_lightning.sample_state import FeatureBank
from ssl_lightning.types import Weights

BEFORE_THE_FIRST = -1
"""The epoch of the views that fill a memory bank."""


@runtime_checkable
class Embeds(Protocol):
    """The ability of a method that the pass needs."""

    def embed(
        self, images: Float[Tensor, "B 3 h w"], layer: str | None = None, weights: Weights = "online"
    ) -> Float[Tensor, "B D"]:
        """Features of normalized images."""
        ...


@runtime_checkable
class EmbedsViews(Protocol):
    """The optional ability of a method that filling a memory bank needs."""

    def embed_views(self, views: list[Float[Tensor, "B 3 _h _w"]]) -> list[Float[Tensor, "B D"]]:
        """Unit embeddings of each view."""
        ...


def embed_dataset(
    trainer: pl.Trainer, module: pl.LightningModule, layer: str | None = None
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """Features of the center views in eval mode, without a change to weights or random state.

    All processes use the buffers of the first, see `share_buffers`.

    Returns:
        Rows of this process with features, ascending, and their features, both on the device of the module.

    Raises:
        DataError: For more unreadable images of all processes than the data allow.
    """
    data = data_of(trainer)
    share_buffers(module)
    with trainer.precision_plugin.forward_context():
        rows, features, unreadable = _embed(_with_progress(trainer, data.predict_dataloader()), data, module, layer)
    everywhere = gather_rows(unreadable.to(rows.device), world()).tolist()
    if everywhere and trainer.state.fn == "fit":
        count = len(everywhere)
        publish(trainer, {"data/masked": float(count), "data/masked_share": count / data.num_samples})
    data.note_unreadable(everywhere)
    return rows, features


def embed_rows(
    trainer: pl.Trainer, module: pl.LightningModule, rows: Int[Tensor, "M"] | None = None, layer: str | None = None
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """Features of some training images, like `embed_dataset`, without a record of those that cannot be read.

    Args:
        trainer: The running trainer.
        module: A method.
        rows: Rows of all processes together, ascending; None for all images.
        layer: One of `module.layers`; None for the first.

    Returns:
        Readable rows of this process, ascending, and their features.
    """
    data = data_of(trainer)
    share_buffers(module)
    with trainer.precision_plugin.forward_context():
        loader = data.predict_dataloader() if rows is None else data.predict_dataloader(rows)
        count = None if rows is None else len(rows)
        own, features, _ = _embed(_with_progress(trainer, loader), data, module, layer, count=count)
    return own, features


def fill_banks(trainer: pl.Trainer, module: pl.LightningModule, banks: list[FeatureBank]) -> None:
    """Fill every row of each bank with the embedding of one training view of its image, bank a with that of view a.

    The views are those of an epoch before the first, in a random order. The network is in training mode, so untrained
    networks normalize by their batches, without a change to running statistics, weights or random state.

    Raises:
        UsageError: For a method that cannot embed views.
        DataError: For more unreadable images of all processes than the data allow.
    """
    data = data_of(trainer)
    if not isinstance(module, EmbedsViews):
        raise UsageError(f"found memory banks of a {type(module).__name__}, which has no embed_views to fill them")
    rows: list[Tensor] = []
    embeddings: list[list[Tensor]] = [[] for _ in banks]
    loader = _with_progress(trainer, data.views_dataloader(), "filling the memory bank")
    with trainer.precision_plugin.forward_context(), isolate_rng(), torch.no_grad(), untracked(module):
        for raw in loader:
            batch = data.augment(module.transfer_batch_to_device(raw, module.device, 0), BEFORE_THE_FIRST)
            rows.append(batch.index)
            views = module.embed_views(batch.views[: len(banks)])
            for of_bank, view in zip(embeddings, views, strict=True):
                of_bank.append(view.float())
    own, num_rows, group = torch.cat(rows), data.num_samples, world()
    valid = scatter_rows(torch.ones_like(own, dtype=torch.bool), own, num_rows, group)
    data.note_unreadable((~valid).nonzero().flatten().tolist())
    for bank, of_bank in zip(banks, embeddings, strict=True):
        bank.fill(scatter_rows(torch.cat(of_bank), own, num_rows, group), valid)


def embed_images(
    module: pl.LightningModule,
    data: TrainingData,
    layer: str | None = None,
    progress: bool = True,
    weights: Weights = "online",
    selected: Int[Tensor, "M"] | None = None,
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """The same without a trainer, in full precision on the device of the module, for notebooks and scripts.

    Args:
        module: A method, for example from `ssl_lightning.load_model`.
        data: A data module with the preprocessing of the module.
        layer: One of `module.layers`; None for the first.
        progress: Show a progress bar.
        weights: "ema" for the averaged weights of methods that have them.
        selected: Rows of the images, ascending; None for all images.

    Returns:
        Readable rows, ascending, and their features, on the CPU.

    Raises:
        UsageError: For data of another preprocessing than that of the module.
        DataError: For more unreadable images than the data allow.
    """
    trained = module.preprocessing
    if isinstance(trained, Preprocessing) and (name := trained.difference(data.preprocessing)) is not None:
        raise UsageError(
            f"found data.{name}={getattr(data.preprocessing, name)} for a model trained with {getattr(trained, name)}; "
            "make the data with that"
        )
    images = data.predict_dataloader() if selected is None else data.predict_dataloader(selected)
    loader = shown_progress(images, "computing features", "batches", shown=progress)
    count = None if selected is None else len(selected)
    try:
        rows, features, unreadable = _embed(loader, data, module, layer, weights, count)
    finally:
        data.teardown("predict")  # ends the worker processes
    data.note_unreadable(unreadable.tolist())
    return rows.cpu(), features.cpu()


def embed_part(
    module: pl.LightningModule,
    data: TrainingData,
    selected: Int[Tensor, "M"],
    layer: str | None = None,
    weights: Weights = "online",
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"], Int[Tensor, "u"]]:
    """Features of some images like `embed_images`, for a pass in parts: unreadable rows are returned.

    Args:
        module: A method.
        data: A data module with the preprocessing of the module.
        selected: Rows of the images, ascending.
        layer: One of `module.layers`; None for the first.
        weights: "ema" for the averaged weights of methods that have them.

    Returns:
        Readable rows, their features, and unreadable rows, on the CPU.
    """
    try:
        found = _embed(data.predict_dataloader(selected), data, module, layer, weights, len(selected))
    finally:
        data.teardown("predict")
    rows, features, unreadable = found
    return rows.cpu(), features.cpu(), unreadable.cpu()


def _embed(
    loader: Any,
    data: TrainingData,
    module: pl.LightningModule,
    layer: str | None,
    weights: Weights = "online",
    count: int | None = None,
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"], Int[Tensor, "u"]]:
    """Rows, their features, and unreadable rows. Features are in RAM once, since they may take most of it.

    Args:
        loader: Of batches.
        data: Of the run.
        module: A method.
        layer: One of `module.layers`; None for the first.
        weights: "ema" for the averaged weights.
        count: Rows of all processes together; None for all images.

    Raises:
        DataError: Without images.
        UsageError: For a module without `embed`.
    """
    if not isinstance(module, Embeds):
        raise UsageError(f"found a {type(module).__name__}, which has no embed; expected a method of ssl_lightning")
    group = world()
    most = -(-(count or data.num_samples) // (1 if group is None else group.size()))
    rows, unreadable, features, done = [], [], torch.empty(0, 0), 0
    with isolate_rng(), torch.no_grad(), eval_mode(module):
        for raw in loader:
            unreadable.append(raw.index[~raw.valid])
            batch = data.center(module.transfer_batch_to_device(raw, module.device, 0))
            embedded = module.embed(batch.views[0], layer, weights)
            if not rows:
                features = torch.empty(most, embedded.shape[1], dtype=torch.float32, device=embedded.device)
            features[done : done + len(embedded)] = embedded
            rows.append(batch.index)
            done += len(embedded)
    if not rows:
        raise DataError("found no images to embed; expected one at least: check the data section")
    return torch.cat(rows), features[:done], torch.cat(unreadable)


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Training mode in which normalization layers use their batch and do not update their running statistics."""
    before = {each: each.training for each in module.modules()}
    layers = [each for each in module.modules() if getattr(each, "track_running_stats", False)]
    module.train()
    for layer in layers:
        layer.track_running_stats = False  # type: ignore[assignment]  # torch types attributes of modules as modules
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True  # type: ignore[assignment]
        for each, training in before.items():
            each.training = training


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards each submodule returns to its mode, frozen ones too."""
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True


def _with_progress(
    trainer: pl.Trainer, loader: Any, what: str = "computing features to cluster"
) -> Any:  # of RawBatch; a checker of items would read one
    bar = trainer.progress_bar_callback
    hidden = bar is None or getattr(bar, "is_disabled", False) or not trainer.is_global_zero
    return shown_progress(loader, what, "batches", shown=not hidden)
