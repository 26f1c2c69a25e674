"""Clusters over time: which cluster of one clustering is which of the next, churn, births and deaths."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.diagnostics import MOST_MATCHED
from ssl_lightning.types import UNLABELLED, label_counts

log = logging.getLogger(__name__)
LEAST_OVERLAP = 0.1
"""Least share of common images, of the images of either cluster, for two matched clusters to be the same one."""
NONE = -1
"""The id where there is no such cluster."""


@dataclass(frozen=True)
class Transition:
    """What happens between two clusterings.

    Attributes:
        successor: The later id of each earlier cluster, -1 where it dies.
        predecessor: The earlier id of each later cluster, -1 where it is born.
        churn: Share of the images, among those with a cluster in both, that leave their cluster for another one than
            the matched one. NaN without images in both.
        births: Later ids of clusters with images that are no earlier cluster.
        deaths: Earlier ids of clusters with images that are no later cluster.
    """

    successor: Int[Tensor, "K"]
    predecessor: Int[Tensor, "K"]
    churn: float
    births: list[int]
    deaths: list[int]


class ClusterHistory:
    """The clusters of the same images in several clusterings of one run, in the order of time.

    Clusters of consecutive clusterings are matched one to one so that most images stay (Hungarian algorithm; above
    2,000 clusters greedily, the largest overlap first, which is logged). Two matched clusters are the same one if their
    common images are more than `least_overlap` of the images of either, |A and B| / |A or B|. A cluster without such a
    match in the next clustering dies; one without such a match in the clustering before is born.

    Args:
        labels: Cluster of each image in each clustering, -1 for none.
        num_clusters: K, including empty clusters; None for the largest label + 1.
        least_overlap: See above.

    Attributes:
        sizes: Images of each cluster in each clustering, with a row for each clustering.
        transitions: One between each two consecutive clusterings.

    Raises:
        ValueError: For no clusterings, or clusterings of different numbers of images.
    """

    def __init__(
        self,
        labels: Sequence[Int[Tensor, "N"]],
        num_clusters: int | None = None,
        least_overlap: float = LEAST_OVERLAP,
    ) -> None:
        counts = {len(column) for column in labels}
        if len(counts) != 1:
            raise ValueError(f"found clusterings of {sorted(counts)} images; expected one at least, of the same images")
        columns = [column.cpu().long() for column in labels]
        k = num_clusters or max(int(column.max()) + 1 if len(column) else 0 for column in columns)
        self.sizes: Int[Tensor, "E K"] = torch.stack([label_counts(column, k) for column in columns])
        if k > MOST_MATCHED and len(columns) > 1:
            log.info(f"{k:,} clusters are matched over time by the largest overlaps first, which is approximate")
        self.transitions = [transition(earlier, later, k, least_overlap) for earlier, later in pairwise(columns)]

    def follow(self, cluster: int, at: int = -1) -> list[int]:
        """The id of one cluster in each clustering, -1 before its birth and after its death.

        Args:
            cluster: Its id.
            at: The clustering of this id; by default the last one.
        """
        place = range(len(self.sizes))[at]
        backward, forward = [], []
        current = cluster
        for step in reversed(self.transitions[:place]):
            current = int(step.predecessor[current]) if current != NONE else NONE
            backward.append(current)
        current = cluster
        for step in self.transitions[place:]:
            current = int(step.successor[current]) if current != NONE else NONE
            forward.append(current)
        return [*reversed(backward), cluster, *forward]


def transition(
    earlier: Int[Tensor, "N"], later: Int[Tensor, "N"], k: int, least_overlap: float = LEAST_OVERLAP
) -> Transition:
    """Match the clusters of two clusterings; see `ClusterHistory`.

    Args:
        earlier: Cluster of each image, -1 for none.
        later: The same in the next clustering.
        k: Number of clusters.
        least_overlap: Least share of common images.
    """
    known = (earlier != UNLABELLED) & (later != UNLABELLED)
    before, after = earlier[known], later[known]
    rows, columns, overlaps = _overlaps(before, after, k)
    matched = _hungarian(rows, columns, overlaps) if k <= MOST_MATCHED else _greedy(rows, columns, overlaps)
    rows, columns, overlaps = rows[matched], columns[matched], overlaps[matched]
    sizes_before, sizes_after = label_counts(before, k), label_counts(after, k)
    either = sizes_before[rows] + sizes_after[columns] - overlaps
    same = overlaps > least_overlap * either
    successor, predecessor = torch.full((k,), NONE), torch.full((k,), NONE)
    successor[rows[same]], predecessor[columns[same]] = columns[same], rows[same]
    return Transition(
        successor,
        predecessor,
        1.0 - float(overlaps.sum()) / len(before) if len(before) else float("nan"),
        ((sizes_after > 0) & (predecessor == NONE)).nonzero().flatten().tolist(),
        ((sizes_before > 0) & (successor == NONE)).nonzero().flatten().tolist(),
    )


def _overlaps(
    before: Int[Tensor, "M"], after: Int[Tensor, "M"], k: int
) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"], Int[Tensor, "P"]]:
    """Pairs of clusters with common images, and their number: a sparse table, since most pairs have none."""
    pairs, counts = torch.unique(before * k + after, return_counts=True)
    return pairs // k, pairs % k, counts


def _hungarian(rows: Int[Tensor, "P"], columns: Int[Tensor, "P"], overlaps: Int[Tensor, "P"]) -> Int[Tensor, "m"]:
    """Pairs of the one-to-one matching with the most common images."""
    from scipy.optimize import linear_sum_assignment

    names_r, r = torch.unique(rows, return_inverse=True)
    names_c, c = torch.unique(columns, return_inverse=True)
    table = torch.zeros(len(names_r), len(names_c), dtype=torch.float64)
    table[r, c] = overlaps.double()
    place = torch.full(table.shape, NONE)
    place[r, c] = torch.arange(len(rows))
    left, right = linear_sum_assignment(table.numpy(), maximize=True)
    chosen = place[torch.from_numpy(left), torch.from_numpy(right)]
    return chosen[chosen != NONE]


def _greedy(rows: Int[Tensor, "P"], columns: Int[Tensor, "P"], overlaps: Int[Tensor, "P"]) -> Int[Tensor, "m"]:
    """Pairs by the number of common images, each cluster once."""
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    chosen = []
    order = overlaps.argsort(descending=True, stable=True)
    for place, row, column in zip(order.tolist(), rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            chosen.append(place)
    return torch.tensor(chosen, dtype=torch.int64)
