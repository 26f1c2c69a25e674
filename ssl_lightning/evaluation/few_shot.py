"""FewShot: many small classification tasks at once."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.draws import Purpose, uniform
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe

FEWEST_QUERIES = 5


@dataclass(frozen=True)
class FewShot(Probe):
    """`ways`-way, `shots`-shot episodes drawn from the test split, classified by the nearest class mean.

    Unit-length features, Euclidean distance to the mean of the shots (Snell et al. 2017; Wang et al. 2019,
    "SimpleShot", L2N). All episodes are one batch of tensors. Half-widths are of 95 % normal intervals over episodes.

    Args:
        ways: Classes of an episode.
        shots: Labelled pictures of each class; one result each.
        episodes: How many.
        queries: Pictures of each class to classify; what is left where a class has fewer, at least 5.
        seed: Which episodes.
    """

    ways: int = 5
    shots: tuple[int, ...] = (1, 5)
    episodes: int = 600
    queries: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ways < 2 or min(self.shots, default=0) < 1 or self.episodes < 2 or self.queries < FEWEST_QUERIES:
            raise ValueError(f"found {self}; expected at least 2 ways, 1 shot, 2 episodes and {FEWEST_QUERIES} queries")

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """`fewshot/<w>way<s>shot` and its `ci95`; NaN where too few classes have enough pictures."""
        answers: dict[str, float] = {}
        for shots in self.shots:
            correct = self._accuracies(test, shots)
            name = f"fewshot/{self.ways}way{shots}shot"
            answers[name] = float(correct.mean()) if correct is not None else float("nan")
            half = 1.96 * float(correct.std()) / math.sqrt(len(correct)) if correct is not None else float("nan")
            answers[f"{name}/ci95"] = half
        return answers

    def _accuracies(self, test: LabelledFeatures, shots: int) -> Float[Tensor, "E"] | None:
        """The share of correct answers in each episode."""
        sizes = torch.bincount(test.labels, minlength=test.num_classes)
        eligible = (sizes >= shots + FEWEST_QUERIES).nonzero().squeeze(1)
        if len(eligible) < self.ways:
            return None
        queries = min(self.queries, int(sizes[eligible].min()) - shots)
        rows = self._draw(test.labels, eligible, sizes, shots + queries, shots)  # [E, W, S+Q]
        features = F.normalize(test.features.float(), dim=1)[rows]  # [E, W, S+Q, D]
        means = features[:, :, :shots].mean(2)  # [E, W, D]
        asked = features[:, :, shots:].flatten(1, 2)  # [E, W*Q, D]
        # the nearest mean by Euclidean distance; the query's own norm does not matter
        scores = 2 * asked @ means.transpose(1, 2) - means.square().sum(2).unsqueeze(1)
        answers = scores.argmax(2).unflatten(1, (self.ways, queries))
        truth = torch.arange(self.ways, device=answers.device).view(1, -1, 1)
        return (answers == truth).double().mean((1, 2))

    def _draw(
        self, labels: Int[Tensor, "N"], eligible: Int[Tensor, "C"], sizes: Int[Tensor, "K"], count: int, shots: int
    ) -> Int[Tensor, "E W S"]:
        """Rows of distinct classes, and of distinct pictures within each class."""
        by_class = torch.argsort(labels, stable=True)
        starts = sizes.cumsum(0) - sizes
        episodes = torch.arange(self.episodes)
        keys = uniform(self.seed, Purpose.EPISODE, shots, episodes, 0, len(eligible))
        classes = eligible[keys.argsort(1)[:, : self.ways]]  # [E, W]
        # draw `count` of n without replacement for every n at once: the smallest keys among the first n
        longest = int(sizes[eligible].max())
        slots = episodes.unsqueeze(1) * self.ways + torch.arange(self.ways)
        members = uniform(self.seed, Purpose.EPISODE, shots, slots.flatten(), 1, longest).view(*classes.shape, longest)
        members.masked_fill_(torch.arange(longest) >= sizes[classes].unsqueeze(2), 2.0)
        chosen = members.topk(count, dim=2, largest=False).indices
        return by_class[starts[classes].unsqueeze(2) + chosen]
