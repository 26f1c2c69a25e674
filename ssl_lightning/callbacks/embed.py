"""One pass over the training pictures: every process its own rows, or all of them without a trainer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch import distributed as dist
from tqdm import tqdm

from ssl_lightning.types import Batch, RawBatch


@runtime_checkable
class Embeds(Protocol):
    """What the pass needs of a method."""

    def embed(self, images: Float[Tensor, "B 3 h w"], layer: str | None = None) -> Float[Tensor, "B D"]:
        """Features of normalised pictures."""
        ...


@runtime_checkable
class ServesPictures(Protocol):
    """What the pass needs of the data."""

    num_samples: int

    def predict_dataloader(self) -> Iterable[RawBatch]:
        """This process's block of the training pictures, in row order."""
        ...

    def centre(self, raw: RawBatch) -> Batch:
        """One centre view of each readable picture."""
        ...


def embed_dataset(
    trainer: pl.Trainer, module: pl.LightningModule, layer: str | None = None
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """Features of the centre views in eval mode; weights, buffers and random state stay as they are.

    Returns:
        Rows of this process that have features, ascending, and their features, both on the device of the module.
    """
    data = cast(ServesPictures, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning when fitting
    with trainer.precision_plugin.forward_context():
        return _embed(_with_progress(trainer, data.predict_dataloader()), data, module, layer)


def embed_pictures(
    module: pl.LightningModule, data: Any, layer: str | None = None, progress: bool = True
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """The same without a trainer, in full precision on the device of the module: for notebooks and scripts.

    Args:
        module: A method, for example from `ssl_lightning.load_model`.
        data: A data module with the pictures' size, mean and standard deviation of the module.
        layer: One of `module.layers`; None for the first.
        progress: Show a bar.

    Returns:
        Rows that could be read, ascending, and their features, on the CPU.

    Raises:
        ValueError: If the data are prepared in another way than those that the module was trained on.
    """
    for name in ("image_size", "mean", "std"):
        found, trained = getattr(data, name), getattr(module, name)
        if not torch.equal(torch.tensor(found), torch.tensor(trained)):
            raise ValueError(f"found data.{name}={found} for a model trained with {trained}; make the data with that")
    loader = tqdm(data.predict_dataloader(), desc="Features", leave=False, disable=not progress, unit="batch")
    try:
        rows, features = _embed(loader, data, module, layer)
    finally:
        data.teardown("predict")  # ends the processes that read pictures
    return rows.cpu(), features.cpu()


def process_group(trainer: pl.Trainer) -> dist.ProcessGroup | None:
    """The group of all processes, None where there is one."""
    return dist.group.WORLD if trainer.world_size > 1 else None


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """All processes' rows in rank order, whatever their number on each."""
    if group is None:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(group.size())]
    dist.all_gather(counts, count, group=group)
    longest = int(torch.cat(counts).max())
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.zeros_like(padded) for _ in counts]
    dist.all_gather(gathered, padded, group=group)
    return torch.cat([part[: int(n)] for part, n in zip(gathered, counts, strict=True)])


def _embed(
    loader: tqdm, data: ServesPictures, module: pl.LightningModule, layer: str | None
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    method = cast(Embeds, module)
    rows, features = [], []
    with isolate_rng(), torch.no_grad(), eval_mode(module):
        for raw in loader:
            batch = data.centre(module.transfer_batch_to_device(raw, module.device, 0))
            rows.append(batch.index)
            features.append(method.embed(batch.views[0], layer).float())
    return torch.cat(rows), torch.cat(features)


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


def _with_progress(trainer: pl.Trainer, loader: Any) -> tqdm:  # of RawBatch; a checker of items would read one
    bar = trainer.progress_bar_callback
    hidden = bar is None or getattr(bar, "is_disabled", False) or not trainer.is_global_zero
    return tqdm(loader, desc="Features to cluster", leave=False, disable=hidden, unit="batch")
