"""FewShot: few-shot classification episodes, all at once."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.rows import unit_rows
from ssl_lightning.counter_rng import Purpose, uniform
from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation.episodes import inner_products, logistic_scores, mean_scores
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe, undefined

FEWEST_QUERIES = 5


@dataclass(frozen=True)
class FewShot(Probe):
    """`ways`-way, `shots`-shot episodes sampled from the test split, with a centroid or a logistic classifier.

    Features are normalized to unit length. "centroid": Euclidean distance to the mean of the shots (Snell et al. 2017;
    Wang et al. 2019, "SimpleShot", L2N). "logistic": multinomial logistic regression on the shots with scikit-learn's
    default penalty (Tian et al. 2020, "Rethinking few-shot image classification"). The half-widths `ci95` are of 95 %
    normal confidence intervals over episodes. Of equal scores the first class wins, so that features that are equal for
    all images give 1 / `ways`.

    Args:
        ways: Classes per episode.
        shots: Labeled images per class; one result for each value.
        episodes: Number of episodes.
        queries: Images per class to classify; fewer, but at least 5, if a class has not enough images.
        seed: Seed of the episodes.
        classifier: Classifier that is fitted to the shots of an episode.
    """

    ways: int = 5
    shots: tuple[int, ...] = (1, 5)
    episodes: int = 600
    queries: int = 15
    seed: int = 0
    classifier: Literal["centroid", "logistic"] = "centroid"

    def __post_init__(self) -> None:
        if self.ways < 2 or min(self.shots, default=0) < 1 or self.episodes < 2 or self.queries < FEWEST_QUERIES:
            raise UsageError(f"found {self}; expected at least 2 ways, 1 shot, 2 episodes and {FEWEST_QUERIES} queries")

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """Return `fewshot/<w>way<s>shot` and its `ci95`; NaN if too few classes have enough images."""
        metrics: dict[str, float] = {}
        for shots in self.shots:
            correct = self._accuracies(test, shots)
            name = f"fewshot/{self.ways}way{shots}shot"
            if correct is None:
                metrics[name] = metrics[f"{name}/ci95"] = self._undefined(name, test, shots)
                continue
            metrics[name] = float(correct.mean())
            metrics[f"{name}/ci95"] = 1.96 * float(correct.std()) / math.sqrt(len(correct))
        return metrics

    def _undefined(self, name: str, test: LabelledFeatures, shots: int) -> float:
        enough = int((torch.bincount(test.labels, minlength=test.num_classes) >= shots + FEWEST_QUERIES).sum())
        rows = f"{shots + FEWEST_QUERIES} test rows or more ({shots} to learn, {FEWEST_QUERIES} to classify)"
        return undefined(f"FewShot's {name}", f"{enough} classes with {rows}", f"at least {self.ways}")

    def _accuracies(self, test: LabelledFeatures, shots: int) -> Float[Tensor, "E"] | None:
        """The accuracy of each episode."""
        sizes = torch.bincount(test.labels, minlength=test.num_classes)
        eligible = (sizes >= shots + FEWEST_QUERIES).nonzero().squeeze(1)
        if len(eligible) < self.ways:
            return None
        queries = min(self.queries, int(sizes[eligible].min()) - shots)
        rows = self.sample_episodes(test.labels, shots, queries)
        kernel, cross = inner_products(unit_rows(test.features.float()), rows, shots)
        scores = (mean_scores if self.classifier == "centroid" else logistic_scores)(kernel, cross, self.ways)
        predicted = scores.argmax(2).unflatten(1, (self.ways, queries))
        truth = torch.arange(self.ways, device=predicted.device).view(1, -1, 1)
        return (predicted == truth).double().mean((1, 2))

    def sample_episodes(self, labels: Int[Tensor, "N"], shots: int, queries: int) -> Int[Tensor, "E W S"]:
        """Rows of every episode: distinct classes; in each first the shots, then the queries, all distinct."""
        labels = labels.cpu()
        sizes = torch.bincount(labels)
        eligible = (sizes >= shots + queries).nonzero().squeeze(1)
        starts = sizes.cumsum(0) - sizes
        by_class = torch.argsort(labels, stable=True)
        episodes = torch.arange(self.episodes)
        keys = uniform(self.seed, Purpose.EPISODE, shots, episodes, 0, len(eligible))
        classes = eligible[keys.argsort(1)[:, : self.ways]]  # [E, W]
        slots = (episodes.unsqueeze(1) * self.ways + torch.arange(self.ways)).flatten()
        numbers = uniform(self.seed, Purpose.EPISODE, shots, slots, 1, 2 * (shots + queries))
        chosen = _distinct(numbers, sizes[classes].flatten()).view(*classes.shape, -1)
        return by_class[starts[classes].unsqueeze(2) + chosen]


def _distinct(numbers: Float[Tensor, "M two_k"], sizes: Int[Tensor, "M"]) -> Int[Tensor, "M k"]:
    """Sample k distinct numbers below each size, in random order.

    Floyd's algorithm (Bentley & Floyd 1987, "A sample of brilliance"): pick t is sampled below size - k + t + 1. A
    number that was picked before is replaced by the largest possible one, which cannot have been picked. Half of the
    random numbers pick, the other half shuffle.
    """
    picks, order = numbers.chunk(2, dim=1)
    count = picks.shape[1]
    chosen = torch.full(picks.shape, -1, dtype=torch.int64)
    for turn in range(count):
        largest = sizes - count + turn
        pick = (picks[:, turn].double() * (largest + 1)).long()
        taken = (chosen[:, :turn] == pick.unsqueeze(1)).any(1)
        chosen[:, turn] = torch.where(taken, largest, pick)
    return chosen.gather(1, order.argsort(1))
