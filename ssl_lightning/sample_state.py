"""Per-sample state of methods: pseudo-labels, memory bank, feature queue.

All hold plain tensors that are saved as extra state. Registered buffers would be overwritten by those of rank 0 at each
forward pass of a distributed run, and a checkpoint could be read only with a dataset of the same size.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.errors import UsageError


class PseudoLabels(nn.Module):
    """The cluster of each training row in each of H clusterings.

    Attributes:
        rows: One column per clustering, -1 for a row without a cluster. There are no rows before the first clustering.
        version: Number of assignments.
    """

    rows: Int[Tensor, "N H"]

    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.empty(0, 0, dtype=torch.int32)
        self.version = 0

    @property
    def is_empty(self) -> bool:
        """Whether no labels were assigned yet. Use this before training instead of the epoch."""
        return self.rows.numel() == 0

    def __getitem__(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B H"]:
        """Labels of some rows, as int64 for the loss.

        Raises:
            UsageError: Before the first clustering.
        """
        self._expect_labels()
        return self.rows.index_select(0, index.to(self.rows.device)).long()

    def all_rows(self) -> Int[Tensor, "N H"]:
        """Labels of all rows, for losses that compare whole clusters.

        Raises:
            UsageError: Before the first clustering.
        """
        self._expect_labels()
        return self.rows

    def assign(self, clusterings: list[Clustering]) -> None:
        """Replace all labels by one clustering per head, each with the labels of all N rows."""
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
        """The state for a checkpoint."""
        return {"rows": self.rows, "version": self.version}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the labels of a checkpoint, for a dataset of any size.

        Raises:
            ValueError: For a value of another kind.
        """
        _expect_rows(state["rows"], 2, floating=False)
        self.rows = state["rows"].to(self.rows.device)
        self.version = int(state["version"])


class FeatureBank(nn.Module):
    """Memory bank: an exponential moving average of the unit embedding of each training row.

    M_i <- normalize(m M_i + (1 - m) z_i), with m = 0.5 for instance recognition and Local Aggregation and 0 for
    DeepCluster-v2.

    Args:
        momentum: m, in [0, 1]; 1 freezes the rows, 0 overwrites them.

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
        """Whether the memory bank was never filled."""
        return self.rows.numel() == 0

    def fill(self, features: Float[Tensor, "N D"], valid: Tensor | None = None) -> None:
        """Set all rows, normalized; rows that are not `valid` are zeros until they are written."""
        valid = torch.ones(len(features), dtype=torch.bool) if valid is None else valid.clone()
        rows = F.normalize(features.detach().float(), dim=1)
        self._set(torch.where(valid.to(rows.device).unsqueeze(1), rows, 0.0), valid)

    def initialize(self, count: int, width: int, seed: int) -> None:
        """Start from random unit rows, uniform on the sphere, with which the first embeddings are averaged.

        No row is `valid` before its first embedding, so that the row of an unreadable image joins no cluster.
        """
        rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
        self._set(F.normalize(rows, dim=1), torch.zeros(count, dtype=torch.bool))

    def _set(self, rows: Float[Tensor, "N D"], valid: Tensor) -> None:
        device = self.rows.device
        self.rows, self.valid = rows.to(device), valid.to(device)

    def write(self, index: Int[Tensor, "B"], z: Float[Tensor, "B D"]) -> None:
        """Average new embeddings into their rows. Of repeated rows, the first occurrence is used.

        Args:
            index: Rows to write, gathered in rank order over processes.
            z: Their embeddings, which are normalized here.
        """
        first = first_occurrences(index)
        rows, fresh = index[first], F.normalize(z[first].detach().float(), dim=1)
        before = self.rows[rows]
        blend = self.momentum * before + (1 - self.momentum) * fresh
        blend = torch.where(before.any(1, keepdim=True), blend, fresh)  # a zero row is replaced
        self.rows[rows] = F.normalize(blend, dim=1)
        self.valid[rows] = True

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)  # type: ignore[arg-type]  # torch's own annotation of `fn` is missing
        device = _device_after(fn, self.rows)
        self.rows, self.valid = self.rows.to(device), self.valid.to(device)
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"rows": self.rows, "valid": self.valid}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the rows of a checkpoint, for a dataset of any size.

        Raises:
            ValueError: For a value of another kind.
        """
        _expect_rows(state["rows"], 2)
        if state["valid"].dtype != torch.bool or state["valid"].shape != state["rows"].shape[:1]:
            raise ValueError(f"found a memory bank of {len(state['rows'])} rows and another number of validity flags")
        device = self.rows.device
        self.rows, self.valid = state["rows"].to(device), state["valid"].to(device)


class FeatureQueue(nn.Module):
    """The newest L embeddings of each assigned view, equal on all processes.

    Args:
        length: L, over all processes; 0 for no queue.

    Attributes:
        rows: Newest first; fewer than L until the queue is full.
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
        """Whether the queue holds L embeddings of every view; it is not used before."""
        return 0 < self.length == self.rows.shape[1]

    def push(self, embeddings: Float[Tensor, "A B D"]) -> None:
        """Add the embeddings of a step and remove the oldest.

        Args:
            embeddings: Embeddings of all processes in rank order.
        """
        fresh = embeddings.detach().float()
        rows = torch.cat([fresh, self.rows.to(fresh.device)], dim=1) if self.rows.numel() else fresh
        self.rows = rows[:, : self.length].contiguous()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)  # type: ignore[arg-type]  # torch's own annotation of `fn` is missing
        self.rows = self.rows.to(_device_after(fn, self.rows))
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"rows": self.rows}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the embeddings of a checkpoint.

        Raises:
            ValueError: For a value of another kind.
        """
        _expect_rows(state["rows"], 3)
        self.rows = state["rows"].to(self.rows.device)


def sample_states(module: nn.Module) -> Iterator[tuple[str, PseudoLabels | FeatureBank | FeatureQueue]]:
    """The per-sample state within a module, by the names of its submodules."""
    for name, child in module.named_modules():
        if isinstance(child, PseudoLabels | FeatureBank | FeatureQueue):
            yield name, child


def _expect_rows(rows: Any, dimensions: int, floating: bool = True) -> None:
    """Validate the rows in a checkpoint.

    Raises:
        ValueError: If they are not a tensor of the expected kind.
    """
    fits = isinstance(rows, Tensor) and rows.dim() == dimensions and rows.is_floating_point() == floating
    if not fits:
        found = f"{rows.dtype} {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
        raise ValueError(f"found {found} as rows of per-sample state; expected a tensor of {dimensions} dimensions")


def first_occurrences(index: Int[Tensor, "B"]) -> Int[Tensor, "U"]:
    """Positions of the first occurrence of each row, in order."""
    _, group = torch.unique(index, return_inverse=True)
    positions = torch.arange(len(index), device=index.device)
    first = torch.full((int(group.max()) + 1 if len(index) else 0,), len(index), device=index.device)
    return first.scatter_reduce(0, group, positions, "amin").sort().values


def _device_after(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> torch.device:
    """The device to which `fn` (of `Module.to`, `.cuda`, `.half`, ...) moves a tensor; the dtype never changes."""
    return fn(torch.empty(0, device=tensor.device)).device
