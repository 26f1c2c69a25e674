"""Rows that may be spread over processes: positions in rank order, sums over all of them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist
from torch.distributed import ProcessGroup

from ssl_lightning.errors import DataError, UsageError


class ShardedRows:
    """This process's rows of a table whose rows lie in rank order over a group.

    Args:
        features: This process's rows.
        group: None where they are all.

    Attributes:
        offset: Position of the first of them among all rows.
        total: N, over all processes.
    """

    def __init__(self, features: Float[Tensor, "N D"], group: ProcessGroup | None) -> None:
        self.features, self.group = features, group
        counts = self.gather(torch.tensor([len(features)], device=features.device))
        rank = 0 if group is None else dist.get_rank(group)
        self.offset, self.total = int(counts[:rank].sum()), int(counts.sum())

    def sum(self, values: Tensor) -> Tensor:
        """Add up over processes, in place."""
        if self.group is not None:
            dist.all_reduce(values, group=self.group)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Equally long tensors of all processes, one after the other."""
        if self.group is None:
            return values
        parts = [torch.empty_like(values) for _ in range(self.group.size())]
        dist.all_gather(parts, values, group=self.group)
        return torch.cat(parts)

    def own(self, positions: Int[Tensor, "k"]) -> Int[Tensor, "m"]:
        """Which of some positions among all rows are this process's, as rows of `features`."""
        mine = positions[(positions >= self.offset) & (positions < self.offset + len(self.features))]
        return (mine - self.offset).to(self.features.device)

    def take(self, positions: Int[Tensor, "k"]) -> Float[Tensor, "k D"]:
        """The rows at some positions among all rows, on every process."""
        taken = self.features.new_zeros(len(positions), self.features.shape[1])
        here = (positions >= self.offset) & (positions < self.offset + len(self.features))
        taken[here.to(taken.device)] = self.features[self.own(positions)]
        return self.sum(taken)


def check(rows: ShardedRows, k: int) -> None:
    """Reject what no clusterer can cluster, on all processes alike.

    Raises:
        ValueError: For k < 1, more clusters than rows, or features that are not finite.
    """
    if k < 1:
        raise UsageError(f"found k={k} clusters; expected at least 1")
    reject_few_rows(rows.total, k)
    _check_finite(rows)


def reject_few_rows(count: int, k: int) -> None:
    """Reject more clusters than rows, also before there are features.

    Raises:
        ValueError: If `count` is less than k.
    """
    if k > count:
        raise UsageError(f"found k={k} clusters for {count} rows; lower num_clusters or give more images")


def _check_finite(rows: ShardedRows) -> None:
    # one sum is ten times faster than a look at every value, and finite only if all of them are
    doubtful = rows.sum((~torch.isfinite(rows.features.sum())).long())
    if not doubtful:
        return
    bad = ~torch.isfinite(rows.features).all(1)
    count = rows.sum(bad.sum())
    if count:
        first = (bad.nonzero().squeeze(1)[:5] + rows.offset).tolist()
        where = f", the first on this process {first}" if first else ", on other processes"
        raise DataError(f"found NaN or infinite features in {int(count)} rows{where}; expected finite features")
