"""The processes of a run: who they are, and their rows side by side."""

from typing import Any

import torch
from jaxtyping import Int
from lightning_utilities.core.rank_zero import rank_zero_only  # the one that Lightning sets; it imports no torch
from torch import Tensor, nn
from torch import distributed as dist


def world() -> dist.ProcessGroup | None:
    """The group of all processes, None where there is one."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    return dist.group.WORLD


def rank() -> int:
    """This process's number, 0 where there is one process.

    Before the processes of a run are connected, it is the number that Lightning has noted.
    """
    return dist.get_rank() if world() is not None else getattr(rank_zero_only, "rank", None) or 0


def highest(values: Int[Tensor, "V"]) -> Int[Tensor, "V"]:
    """Of each value the highest on any process, in one reduction; the same answer on all of them.

    Args:
        values: This process's, on the device that the processes talk through. Overwritten.
    """
    group = world()
    if group is not None:
        dist.all_reduce(values, dist.ReduceOp.MAX, group)
    return values


def share_buffers(module: nn.Module) -> None:
    """Give every process the buffers of the first: running statistics that each has moved by batches of its own.

    Data parallelism does so before each training step and not after the last one. Checkpoints hold those of the first
    process, so that only with them features are the same before and after a resume.
    """
    group = world()
    if group is not None:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0, group)


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """All processes' rows in rank order, whatever their number on each; no gradient flows back.

    Args:
        rows: This process's rows.
        group: None where they are all.
    """
    return rows if group is None else torch.cat(_gather_parts(rows, group))


def gather_rows_with_gradient(rows: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, int]:
    """All processes' rows in rank order, and where this process's begin.

    Gradients flow back into the rows of the process that they came from, summed over all processes: the derivative of
    the sum of all processes' losses. Where they require none, nothing is sent back.

    Args:
        rows: This process's rows.
        group: None where they are all.
    """
    return (rows, 0) if group is None else _GatherRows.apply(rows, group)  # type: ignore[return-value]  # untyped


class _GatherRows(torch.autograd.Function):
    """torch's own gathers with a gradient take as many rows from each process."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, int]:
        parts = _gather_parts(rows, group)
        ctx.group, ctx.start, ctx.count = group, sum(len(part) for part in parts[: group.rank()]), len(rows)
        return torch.cat(parts), ctx.start

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.start : ctx.start + ctx.count], None


def _gather_parts(rows: Tensor, group: dist.ProcessGroup) -> list[Tensor]:
    """The rows of each process."""
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(group.size())]
    dist.all_gather(counts, count, group=group)
    longest = int(torch.cat(counts).max())
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.zeros_like(padded) for _ in counts]
    dist.all_gather(gathered, padded, group=group)
    return [part[: int(n)] for part, n in zip(gathered, counts, strict=True)]
