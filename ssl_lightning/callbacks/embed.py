"""embed_dataset: one pass over the training pictures, every process its own rows, by index."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch import distributed as dist
from tqdm.auto import tqdm

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
    with isolate_rng(), trainer.precision_plugin.forward_context():
        return _embed(module, data, layer, hidden=_hides_progress(trainer))


def embed_pictures(
    module: pl.LightningModule, data: pl.LightningDataModule, layer: str | None = None
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """The same without a trainer, for notebooks: features of all training pictures of a data module.

    Returns:
        Rows of the readable pictures, ascending, and their features, on the device of the module.
    """
    data.setup("predict")
    return _embed(module, cast(ServesPictures, data), layer, hidden=False)


def _embed(
    module: pl.LightningModule, data: ServesPictures, layer: str | None, hidden: bool
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    rows, features = [], []
    with torch.no_grad(), eval_mode(module):
        for raw in tqdm(data.predict_dataloader(), desc="Features", leave=False, disable=hidden, unit="batch"):
            batch = data.centre(module.transfer_batch_to_device(raw, module.device, 0))
            rows.append(batch.index)
            features.append(cast(Embeds, module).embed(batch.views[0], layer).float())
    return torch.cat(rows), torch.cat(features)


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


def _hides_progress(trainer: pl.Trainer) -> bool:
    bar = trainer.progress_bar_callback
    return bar is None or getattr(bar, "is_disabled", False) or not trainer.is_global_zero
