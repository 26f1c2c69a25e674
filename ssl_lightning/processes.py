"""The processes of a run: who they are, and their rows side by side."""

import torch
from torch import Tensor
from torch import distributed as dist


def world() -> dist.ProcessGroup | None:
    """The group of all processes, None where there is one."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    return dist.group.WORLD


def rank() -> int:
    """This process's number, 0 where there is one."""
    return dist.get_rank() if world() is not None else 0


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """All processes' rows in rank order, whatever their number on each; no gradient flows back.

    Args:
        rows: This process's rows.
        group: None where they are all.
    """
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
