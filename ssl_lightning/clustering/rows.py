"""Rows that may be sharded over processes: positions in rank order, and sums over all rows."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from ssl_lightning.errors import DataError, UsageError

SAFE = (1e-12, 1e17)
"""Range of the largest absolute feature in which squared distances neither underflow nor overflow in float32."""


def power_of_two(largest: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The power of two that scales each positive number to [0.5, 1); multiplying by it is exact."""
    largest = largest.clamp(min=torch.finfo(largest.dtype).tiny)
    return torch.frexp(largest).mantissa / largest


def unit_rows(features: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Rows of unit length, for values of any magnitude; zero rows stay zero.

    Rows are scaled by a power of two first, since the squares of very large or small values are infinite or zero.
    """
    if features.shape[1] == 0:
        return features
    return F.normalize(features * power_of_two(features.abs().amax(1, keepdim=True)), dim=1)


class ShardedRows:
    """The rows of this process in a table that is sharded over a group in rank order.

    Args:
        features: Rows of this process.
        group: None if these are all rows.

    Attributes:
        offset: Position of the first row of this process among all rows.
        total: N, the number of rows over all processes.
        scale: The features are the given ones times this power of two.
    """

    scale: float = 1.0

    def __init__(self, features: Float[Tensor, "N D"], group: ProcessGroup | None) -> None:
        self.features, self.group = features, group
        counts = self.gather(torch.tensor([len(features)], device=features.device))
        rank = 0 if group is None else dist.get_rank(group)
        self.offset, self.total = int(counts[:rank].sum()), int(counts.sum())

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes, in place."""
        if self.group is not None:
            dist.all_reduce(values, group=self.group)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate tensors of equal length from all processes."""
        if self.group is None:
            return values
        parts = [torch.empty_like(values) for _ in range(self.group.size())]
        dist.all_gather(parts, values, group=self.group)
        return torch.cat(parts)

    def own(self, positions: Int[Tensor, "k"]) -> Int[Tensor, "m"]:
        """Rows of `features` among the given positions."""
        mine = positions[(positions >= self.offset) & (positions < self.offset + len(self.features))]
        return (mine - self.offset).to(self.features.device)

    def take(self, positions: Int[Tensor, "k"]) -> Float[Tensor, "k D"]:
        """The rows at given positions among all rows, on every process."""
        taken = self.features.new_zeros(len(positions), self.features.shape[1])
        here = (positions >= self.offset) & (positions < self.offset + len(self.features))
        taken[here.to(taken.device)] = self.features[self.own(positions)]
        return self.sum(taken)


def in_range(rows: ShardedRows) -> ShardedRows:
    """The rows, scaled by a power of two if the squares of their values would overflow or underflow in float32."""
    features = rows.features
    bounds = torch.stack(torch.aminmax(features)).abs().amax().view(1) if features.numel() else features.new_zeros(1)
    largest = rows.gather(bounds).amax()
    if not torch.isfinite(largest) or largest == 0 or SAFE[0] <= largest <= SAFE[1]:
        return rows
    scaled = ShardedRows(features * power_of_two(largest), rows.group)
    scaled.scale = float(power_of_two(largest))
    return scaled


def check(rows: ShardedRows, k: int) -> None:
    """Reject input that cannot be clustered, on all processes alike.

    Raises:
        UsageError: For k < 1 or more clusters than rows.
        DataError: For features that are not finite.
    """
    if k < 1:
        raise UsageError(f"found k={k} clusters; expected at least 1")
    reject_few_rows(rows.total, k)
    _check_finite(rows)


def reject_few_rows(count: int, k: int) -> None:
    """Reject more clusters than rows; features are not needed.

    Raises:
        UsageError: If `count` is less than k.
    """
    if k > count:
        raise UsageError(f"found k={k} clusters for {count} rows; lower num_clusters or give more images")


def is_finite(features: Float[Tensor, "N D"]) -> bool:
    """Whether all values are finite. Their sum, which then is finite too, takes a tenth of the time of all values."""
    return bool(torch.isfinite(features.sum())) or bool(torch.isfinite(features).all())


def _check_finite(rows: ShardedRows) -> None:
    doubtful = rows.sum((~torch.isfinite(rows.features.sum())).long())
    if not doubtful:
        return
    bad = ~torch.isfinite(rows.features).all(1)
    count = rows.sum(bad.sum())
    if count:
        first = (bad.nonzero().squeeze(1)[:5] + rows.offset).tolist()
        where = f", the first on this process {first}" if first else ", on other processes"
        raise DataError(f"found NaN or infinite features in {int(count)} rows{where}; expected finite features")
