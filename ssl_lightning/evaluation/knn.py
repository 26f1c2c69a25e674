"""KNN: weighted k-nearest-neighbor classification."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.products import has_bfloat16_units, rounded_factors
from ssl_lightning.clustering.rows import unit_rows
from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation.class_groups import accuracies
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe, undefined

SCORES_AT_ONCE = 1 << 26
"""Similarities in memory at a time: 256 MB. The reference set is read once for each such block of queries."""
ROWS_AT_ONCE = 1 << 14
"""Reference rows that are normalized at a time by `nearest_between`."""
PARTS = 8
"""Number of parts of the reference set; also the size of a group in the first round of the search."""
WORTH_ROUNDING = 4096
"""Size of the reference set from which similarities are rounded to bfloat16."""
FEW_NEIGHBORS = 50
"""Up to this k, neighbors are selected among twice as many candidates by exact products."""
CANDIDATES = 64
"""Least number of candidates: similarities of near-duplicates differ by less than the rounding error."""


def nearest_rows(features: Float[Tensor, "N D"], rows: Int[Tensor, "Q"], count: int) -> Int[Tensor, "Q n"]:
    """The rows with the highest cosine similarity to the given rows, nearest first, excluding each row itself.

    Args:
        features: Features of all rows.
        rows: Query rows.
        count: Neighbors per query.

    Raises:
        ValueError: If there are fewer other rows.
    """
    if not 1 <= count < len(features):
        raise ValueError(f"found count={count} among {len(features)} rows; expected 1 to {len(features) - 1}")
    reference = unit_rows(features)
    blocks = []
    for block in rows.split(max(1, SCORES_AT_ONCE // len(features))):
        similarity = reference[block] @ reference.T
        similarity.scatter_(1, block.unsqueeze(1), -torch.inf)
        blocks.append(similarity.topk(count, dim=1).indices)
    return torch.cat(blocks)


def nearest_between(queries: Float[Tensor, "Q D"], reference: Float[Tensor, "N D"], count: int) -> Int[Tensor, "Q n"]:
    """The reference rows with the highest cosine similarity to each query, nearest first; all of them if there are few.

    Args:
        queries: Features of some images.
        reference: Features of other images.
        count: Neighbors per query.
    """
    units = unit_rows(queries)
    blocks = [units @ unit_rows(block).T for block in reference.split(ROWS_AT_ONCE)]
    similarity = torch.cat(blocks, dim=1) if blocks else units.new_zeros(len(units), 0)
    return similarity.topk(min(count, len(reference)), dim=1).indices


@dataclass(frozen=True)
class KNN(Probe):
    """k-NN classification with votes weighted by exp(similarity / temperature), by cosine similarity.

    Wu et al. 2018 (arXiv 1805.01978), section 3.4. k=20 is reported as `eval/knn/top1`, any other k as
    `eval/knn<k>/top1`. The search is exhaustive. Of rows that are equally similar, any are neighbors: on features that
    are equal for all images the accuracy is that of one class. Rows of zeros have similarity 0 to every row.

    Note:
        On CPUs with bfloat16 products, similarities to 4096 rows and more are rounded: a neighbor almost as close as
        the k-th can replace it. Up to k=50, neighbors are selected by exact similarities among at least 64 and at least
        twice as many candidates. benchmarks/README.md reports the effect on accuracy.

    Args:
        k: Number of neighbors; all training rows if there are fewer.
        temperature: 0.1 for CIFAR-10, 0.07 for ImageNet.
    """

    k: int = 20
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise UsageError(f"found KNN(k={self.k}, temperature={self.temperature}); expected positive numbers")

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """Return the accuracy, also of `test.groups`; NaN if the splits share no class or one is empty. See `Probe`."""
        prefix = "knn" if self.k == 20 else f"knn{self.k}"
        known = int(torch.isin(test.labels, train.labels).sum())
        if not known:
            found = f"{len(train.labels)} training and {len(test.labels)} test rows, {known} of known classes"
            return {f"{prefix}/top1": undefined(f"KNN's {prefix}/top1", found, "at least one of each, of one class")}
        predicted = self.predict(train, test.features)
        return accuracies(f"{prefix}/top1", predicted == test.labels, test)

    def predict(self, train: LabelledFeatures, queries: Float[Tensor, "M D"]) -> Int[Tensor, "M"]:
        """The class with the largest vote for each query."""
        search = _search(unit_rows(train.features.float()), min(self.k, len(train.labels)))
        blocks = []
        for block in unit_rows(queries.float()).split(search.rows_at_once):
            similarity, nearest = search(block)
            weights = ((similarity - similarity.amax(1, keepdim=True)) / self.temperature).exp()
            votes = torch.zeros(len(block), train.num_classes, device=block.device)
            blocks.append(votes.scatter_add_(1, train.labels[nearest], weights).argmax(1))
        return torch.cat(blocks)


def _search(reference: Float[Tensor, "N D"], k: int) -> "_Search | _RoundedSearch":
    """The faster search for this reference set on this machine."""
    if len(reference) >= WORTH_ROUNDING and reference.device.type == "cpu" and has_bfloat16_units():
        return _RoundedSearch(reference, k)
    return _Search(reference, k)


class _Search:
    """The k reference rows with the largest inner products, by an exhaustive search in two rounds.

    The reference set is divided into `PARTS` equal parts; rows at the same position of each part form a group. The k
    largest products lie in the k groups with the largest maxima. One pass of maxima, a search among them and a search
    among the members of the best k groups therefore give the result of one long `topk` in half its time.
    """

    def __init__(self, reference: Float[Tensor, "N D"], k: int) -> None:
        self.reference, self.k = reference, k
        self.length = len(reference) // PARTS
        self.in_one_round = self.length <= 2 * k
        self.rows_at_once = max(1, SCORES_AT_ONCE // len(reference))
        # one buffer for all blocks: allocating memory of this size would take as long as the products
        self.scores = reference.new_empty(0 if self.in_one_round else PARTS, self.rows_at_once, self.length)

    def __call__(self, queries: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
        """The products, in float32, and the rows of the k nearest, in any order."""
        with rounded_factors():
            if self.in_one_round:
                values, rows = (queries @ self.reference.T).topk(self.k, dim=1, sorted=False)
                return values.float(), rows
            scores = self.scores[:, : len(queries)]  # [PARTS, B, length]
            for part, rows in zip(scores, self.reference.split(self.length), strict=False):
                torch.mm(queries, rows.T, out=part)
            rest = queries @ self.reference[PARTS * self.length :].T  # [B, fewer than PARTS]
        groups = _columns_of_largest(scores.amax(0).float(), self.k)  # [B, k]
        candidates = torch.cat([*(part.gather(1, groups) for part in scores), rest], dim=1)  # [B, PARTS k + rest]
        places = _columns_of_largest(candidates.float(), self.k)
        part, member = places // self.k, places % self.k
        last = PARTS * (self.length - self.k) + places  # rows beyond the parts follow the candidates from these
        rows = torch.where(part < PARTS, self.length * part + groups.gather(1, member), last)
        return candidates.gather(1, places).float(), rows


class _RoundedSearch:
    """The search in bfloat16, in half the time. Up to k = `FEW_NEIGHBORS` the products are exact.

    The rounded quantity is not the cosine, which may be 0.99 for all rows, but its difference from an estimate of the
    k-th largest: the mean of the reference set is subtracted from its rows, and the estimate is subtracted from the
    products by an additional column of ones.
    """

    def __init__(self, reference: Float[Tensor, "N D"], k: int) -> None:
        self.exact, self.k = reference, k
        self.mean = reference.mean(0)
        self.some = (
            reference[:: max(k, 50)] - self.mean
        )  # the largest product with one row in k is about the k-th of all
        rounded = reference.new_ones(len(reference), reference.shape[1] + 1, dtype=torch.bfloat16)
        for rows, block in zip(rounded.split(1 << 13), reference.split(1 << 13), strict=True):
            rows[:, :-1] = block - self.mean
        self.search = _Search(rounded, min(max(2 * k, CANDIDATES), len(reference)) if k <= FEW_NEIGHBORS else k)
        self.rows_at_once = self.search.rows_at_once

    def __call__(self, queries: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
        """See `_Search`."""
        guess = (queries @ self.some.T).amax(1).bfloat16()
        values, rows = self.search(torch.cat([queries.bfloat16(), -guess.unsqueeze(1)], dim=1))
        if self.k > FEW_NEIGHBORS:
            return values + (guess.float() + queries @ self.mean).unsqueeze(1), rows
        values, places = self._products(queries, rows).topk(self.k, dim=1, sorted=False)
        return values, rows.gather(1, places)

    def _products(self, queries: Float[Tensor, "B D"], rows: Int[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """Products of each query with its own rows, in blocks that fit the cache."""
        blocks = zip(queries.split(64), rows.split(64), strict=True)
        return torch.cat([torch.bmm(self.exact[own], block.unsqueeze(2)).squeeze(2) for block, own in blocks])


def _columns_of_largest(values: Float[Tensor, "B n"], k: int) -> Int[Tensor, "B k"]:
    """Columns of the k largest values of each row. NumPy's selection takes half the time of torch's on a CPU."""
    if values.device.type != "cpu":
        return values.topk(k, dim=1, sorted=False).indices
    return torch.from_numpy(values.numpy().argpartition(-k, axis=1)[:, -k:])
