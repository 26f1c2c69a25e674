"""Splits of probe sets: the rows of a pass over one, from all processes."""

import lightning.pytorch as pl
import torch
from torch import Tensor

from ssl_lightning.processes import gather_rows, world
from ssl_lightning.sample_state import first_occurrences


def joined_split(batches: list[dict[str, Tensor]], trainer: pl.Trainer) -> dict[str, Tensor]:
    """Tensors of one split in row order, from all processes, each row once.

    Args:
        batches: Of this process, by name; `index` holds the rows.
        trainer: The running trainer.
    """
    group, device = world(), trainer.strategy.root_device
    whole = {
        name: gather_rows(torch.cat([batch[name] for batch in batches]).to(device), group).cpu() for name in batches[0]
    }
    once = first_occurrences(whole["index"])
    in_order = once[whole["index"][once].argsort()]
    return {name: values[in_order] for name, values in whole.items()}
