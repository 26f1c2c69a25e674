"""State beside the weights: who belongs where, what each image last looked like, what the last batches looked like.

All hold plain tensors, saved as extra state. As registered buffers, distributed training would overwrite every other
process's writes with rank 0's at each forward, and a checkpoint could only be read where the data set is as large.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.errors import UsageError


class PseudoLabels(nn.Module):
    """The cluster of each training row in each of H clusterings; part of the method's state.

    Attributes:
        rows: One column a clustering, -1 for a row that was never clustered. No rows before the first clustering.
        version: How often labels were assigned.
    """

    rows: Int[Tensor, "N H"]

    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.empty(0, 0, dtype=torch.int32)
        self.version = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was assigned yet: the question to ask before training, not the epoch."""
        return self.rows.numel() == 0

    def __getitem__(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B H"]:
        """Labels of some rows, as int64 for the loss.

        Raises:
            ValueError: Before the first clustering.
        """
        self._expect_labels()
        return self.rows.index_select(0, index.to(self.rows.device)).long()

    def all_rows(self) -> Int[Tensor, "N H"]:
        """Labels of all rows, for losses that look at whole clusters.

        Raises:
            ValueError: Before the first clustering.
        """
        self._expect_labels()
        return self.rows

    def assign(self, clusterings: list[Clustering]) -> None:
        """Replace all labels; one clustering a head, each with the labels of all N rows."""
        labels = torch.stack([clustering.labels for clustering in clusterings], dim=1)
        self.rows = labels.to(device=self.rows.device, dtype=torch.int32)
        self.version += 1

    def _expect_labels(self) -> None:
        if self.is_empty:
            raise UsageError(
                "found no pseudo-labels; expected a clustering first: add the Recluster callback to trainer.callbacks, "
                "with first_epoch no later than the first epoch that needs them"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)  # type: ignore[arg-type]  # torch's own annotation of `fn` is missing
        self.rows = self.rows.to(_device_after(fn, self.rows))
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rows": self.rows, "version": self.version}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's labels, whatever the size of its data set.

        Raises:
            ValueError: If they are none.
        """
        _expect_rows(state["rows"], 2, floating=False)
        self.rows = state["rows"].to(self.rows.device)
        self.version = int(state["version"])


class FeatureBank(nn.Module):
    """A unit-norm running average of the embedding of each training row.

    M_i <- normalize(m M_i + (1 - m) z_i): m = 0.5 for instance recognition and Local Aggregation, 0 for
    DeepCluster-v2.

    Args:
        momentum: m, in [0, 1]; 1 freezes, 0 overwrites.

    Attributes:
        rows: Unit rows; none before `fill`.
        valid: Whether a row holds an embedding of its image.
    """

    rows: Float[Tensor, "N D"]

    def __init__(self, momentum: float = 0.5) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UsageError(f"found a bank momentum of {momentum}; expected a number from 0 to 1")
        self.momentum = momentum
        self.rows = torch.empty(0, 0)
        self.valid = torch.empty(0, dtype=torch.bool)

    @property
    def is_empty(self) -> bool:
        """Whether the bank was never filled."""
        return self.rows.numel() == 0

    def fill(self, features: Float[Tensor, "N D"], valid: Tensor | None = None) -> None:
        """Set all rows at once, normalized; those that are not `valid` are zeros until they are written."""
        valid = torch.ones(len(features), dtype=torch.bool) if valid is None else valid.clone()
        rows = F.normalize(features.detach().float(), dim=1)
        self._set(torch.where(valid.to(rows.device).unsqueeze(1), rows, 0.0), valid)

    def initialize(self, count: int, width: int, seed: int) -> None:
        """Begin with random unit rows, uniform over the sphere, which the first embeddings are blended into.

        None is `valid` before that: the row of an image that is never read must not join a cluster.
        """
        rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
        self._set(F.normalize(rows, dim=1), torch.zeros(count, dtype=torch.bool))

    def _set(self, rows: Float[Tensor, "N D"], valid: Tensor) -> None:
        device = self.rows.device
        self.rows, self.valid = rows.to(device), valid.to(device)

    def write(self, index: Int[Tensor, "B"], z: Float[Tensor, "B D"]) -> None:
        """Blend new embeddings in. Of rows that occur twice the first occurrence counts, on any number of processes.

        Args:
            index: Rows to write, gathered in rank order where there are several processes.
            z: Their embeddings; normalized here.
        """
        first = _first_occurrences(index)
        rows, fresh = index[first], F.normalize(z[first].detach().float(), dim=1)
        before = self.rows[rows]
        blend = self.momentum * before + (1 - self.momentum) * fresh
        blend = torch.where(before.any(1, keepdim=True), blend, fresh)  # a row of zeros has nothing to average with
        self.rows[rows] = F.normalize(blend, dim=1)
        self.valid[rows] = True

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)  # type: ignore[arg-type]  # torch's own annotation of `fn` is missing
        device = _device_after(fn, self.rows)
        self.rows, self.valid = self.rows.to(device), self.valid.to(device)
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rows": self.rows, "valid": self.valid}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's rows, whatever the size of its data set.

        Raises:
            ValueError: If they are none.
        """
        _expect_rows(state["rows"], 2)
        if state["valid"].dtype != torch.bool or state["valid"].shape != state["rows"].shape[:1]:
            raise ValueError(f"found a memory of {len(state['rows'])} rows without as many marks of the valid ones")
        device = self.rows.device
        self.rows, self.valid = state["rows"].to(device), state["valid"].to(device)


class FeatureQueue(nn.Module):
    """The newest L embeddings of each assigned view, equal on all processes.

    Args:
        length: L, over all processes; 0 for no queue.

    Attributes:
        rows: Newest first; fewer than L of them until the queue is full.
    """

    rows: Float[Tensor, "A L D"]

    def __init__(self, length: int) -> None:
        super().__init__()
        if length < 0:
            raise UsageError(f"found queue_length={length}; expected 0 for no queue, or more")
        self.length = length
        self.rows = torch.empty(0, 0, 0)

    @property
    def is_full(self) -> bool:
        """Whether it holds L embeddings of every view: before that it is not to be used."""
        return 0 < self.length == self.rows.shape[1]

    def push(self, embeddings: Float[Tensor, "A B D"]) -> None:
        """Put a step's embeddings in front and let the oldest go.

        Args:
            embeddings: Of all processes' rows, in rank order.
        """
        fresh = embeddings.detach().float()
        rows = torch.cat([fresh, self.rows.to(fresh.device)], dim=1) if self.rows.numel() else fresh
        self.rows = rows[:, : self.length].contiguous()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)  # type: ignore[arg-type]  # torch's own annotation of `fn` is missing
        self.rows = self.rows.to(_device_after(fn, self.rows))
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rows": self.rows}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's embeddings.

        Raises:
            ValueError: If they are none.
        """
        _expect_rows(state["rows"], 3)
        self.rows = state["rows"].to(self.rows.device)


def _expect_rows(rows: Any, dimensions: int, floating: bool = True) -> None:
    """What a checkpoint holds may be anything.

    Raises:
        ValueError: For no tensor, or one of another kind.
    """
    fits = isinstance(rows, Tensor) and rows.dim() == dimensions and rows.is_floating_point() == floating
    if not fits:
        found = f"{rows.dtype} {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
        raise ValueError(f"found {found} as rows of a memory; expected a tensor of {dimensions} dimensions")


def _first_occurrences(index: Int[Tensor, "B"]) -> Int[Tensor, "U"]:
    """Positions at which a row occurs for the first time, in order."""
    _, group = torch.unique(index, return_inverse=True)
    positions = torch.arange(len(index), device=index.device)
    first = torch.full((int(group.max()) + 1 if len(index) else 0,), len(index), device=index.device)
    return first.scatter_reduce(0, group, positions, "amin").sort().values


def _device_after(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> torch.device:
    """Where `fn` (of `Module.to`, `.cuda`, `.half`, ...) would put a tensor; memories move but never change dtype."""
    return fn(torch.empty(0, device=tensor.device)).device
