"""The processes of a distributed run, and collective operations on their rows."""

from typing import Any

import torch
from jaxtyping import Int
from lightning_utilities.core.rank_zero import rank_zero_only  # the one that Lightning sets; it imports no torch
from torch import Tensor, nn
from torch import distributed as dist


def world() -> dist.ProcessGroup | None:
    """The group of all processes, or None for a single process."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    return dist.group.WORLD


def rank() -> int:
    """The rank of this process, 0 for a single process.

    Before the process group is initialized, this is the rank that Lightning determined.
    """
    return dist.get_rank() if world() is not None else getattr(rank_zero_only, "rank", None) or 0


def highest(values: Int[Tensor, "V"]) -> Int[Tensor, "V"]:
    """The maximum of each value over all processes, in one reduction; the result is equal on all of them.

    Args:
        values: Values of this process, on the device of the process group. Overwritten.
    """
    group = world()
    if group is not None:
        dist.all_reduce(values, dist.ReduceOp.MAX, group)
    return values


def share_buffers(module: nn.Module) -> None:
    """Broadcast the buffers of rank 0 to all processes, since running statistics differ between them.

    Data parallelism does this before each training step and not after the last one. Checkpoints hold the buffers of
    rank 0, so that features before and after a resume are equal only with these.
    """
    group = world()
    if group is not None:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0, group)


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The rows of all processes in rank order, without gradient. Processes may have different numbers of rows.

    Args:
        rows: Rows of this process.
        group: None if these are all rows.
    """
    return rows if group is None else torch.cat(_gather_parts(rows, group))


def scatter_rows(
    values: Tensor, rows: Int[Tensor, "n"], num_rows: int, group: dist.ProcessGroup | None, missing: int | float = 0
) -> Tensor:
    """Place the values of all processes by row, on every process.

    Args:
        values: Values of this process, one for each of `rows`.
        rows: Rows of this process. A row of several processes has the value of one of them.
        num_rows: N, the number of rows of the result.
        group: None if these are all rows.
        missing: The value of a row that no process has.
    """
    placed = values.new_full((num_rows, *values.shape[1:]), missing)
    placed[gather_rows(rows, group)] = gather_rows(values, group)
    return placed


def block_of(count: int, rank: int, world_size: int) -> slice:
    """The contiguous block of one of several processes; blocks are disjoint, complete and differ by at most one row.

    Args:
        count: Number of rows of all processes.
        rank: The process.
        world_size: Number of processes.
    """
    return slice(count * rank // world_size, count * (rank + 1) // world_size)


def subgroup_of_this_process(size: int) -> dist.ProcessGroup | None:
    """The group of consecutive ranks that this process belongs to; None for a single process or a group of all.

    Every process calls this, since making a group is a collective operation.

    Args:
        size: Ranks in a group; it divides the number of processes.
    """
    everyone = world()
    if everyone is None or size == everyone.size():
        return None
    own, _ = dist.new_subgroups(size)
    return own


def gather_rows_with_gradient(rows: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, int]:
    """The rows of all processes in rank order, and the position of the first row of this process.

    Gradients flow back to the process of each row, summed over all processes: the derivative of the sum of the losses
    of all processes. If no row requires a gradient, nothing is sent back.

    Args:
        rows: Rows of this process.
        group: None if these are all rows.
    """
    return (rows, 0) if group is None else _GatherRows.apply(rows, group)  # type: ignore[return-value]  # untyped


class _GatherRows(torch.autograd.Function):
    """An all-gather with gradient for different numbers of rows; torch's own requires equal numbers."""

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
