"""Failure: how training that goes wrong shows in its metrics, and what helps. Methods name theirs; the doctor looks."""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Failure:
    """One known way to fail: a metric of the run in a range where it has no business to be.

    Args:
        name: `doctor/<name>` is 1 while the failure lasts, else 0.
        metric: What shows it, by its name in metrics.csv; its mean over the last steps is looked at.
        low: It fails above this.
        high: It fails below this.
        says: What is wrong, with `{value}` for the mean.
        suggestion: What to change, for the settings at hand, as options of the command line.
        since: Name of a metric that turns from 0 to 1. What is looked at, in the few hundred steps that follow, is how
            far `metric` then is, on average, from where it was heading before, in either direction; nothing where too
            few rows came before.
        falls: By how much a step `metric` may fall all the same: learning that sets in is no failure.
    """

    name: str
    metric: str
    low: float
    high: float
    says: str
    suggestion: str
    since: str | None = None
    falls: float = 0.0

    def holds(self, value: float) -> bool:
        """Whether a value is in the failing range."""
        return self.low < value < self.high


# Limits stand between what healthy runs of configs/ showed in their first 500 steps and what failed ones showed;
# docs/troubleshooting.md has the figures.


def stuck_at_chance(suggestion: str, high: float = 1.002) -> Failure:
    """The loss stays at ln K: predictions are the same for every image.

    Args:
        suggestion: See `Failure`.
        high: Where the same predictions for every image are not even, their loss is above ln K; infinite there.
    """
    says = "the loss is {value:.4f} of ln K, no less than that of predictions which are the same for every image"
    return Failure("stuck_at_chance", "train/loss_over_chance", 0.998, high, says, suggestion)


def equal_embeddings(suggestion: str) -> Failure:
    """All images have the same embedding."""
    says = "embeddings spread {value:.4f} of what even ones do: images are not told apart"
    return Failure("equal_embeddings", "train/embedding_std", -inf, 0.02, says, suggestion)


def rank_one(suggestion: str) -> Failure:
    """Embeddings lie on one line."""
    says = "embeddings differ along {value:.2f} directions: they are of rank one"
    return Failure("rank_one", "train/embedding_rank", -inf, 1.03, says, suggestion)


def unused_prototypes(suggestion: str) -> Failure:
    """Few prototypes or clusters are ever the nearest one."""
    says = "{value:.1%} of the prototypes that even use would reach are ever the nearest of an image"
    return Failure("unused_prototypes", "train/prototypes_used", -inf, 0.1, says, suggestion)


def queue_blow_up(suggestion: str) -> Failure:
    """The loss leaps when codes begin to be balanced with embeddings of a network that has changed since.

    Down at first, since the batch is told apart from the queue and gets prototypes of its own; then up, past chance.
    """
    says = "the loss left its course by {value:.3f} of ln K when the queue came into use"
    since, falls = "train/queue_in_use", 5e-4  # the steepest fall of healthy runs once past their first steps
    return Failure("queue_blow_up", "train/loss_over_chance", 0.05, inf, says, suggestion, since, falls)


def unnormalized_inputs(suggestion: str) -> Failure:
    """Images reach the network far from mean 0 or standard deviation 1."""
    says = "views are {value:.2f} away from mean 0 or standard deviation 1"
    return Failure("unnormalized_inputs", "train/input_offset", 0.5, inf, says, suggestion)


def small_batch(suggestion: str) -> Failure:
    """Far fewer images are balanced at a time than there are prototypes."""
    says = "codes are balanced over {value:.3f} images a prototype"
    return Failure("small_batch", "train/rows_per_prototype", -inf, 1 / 16, says, suggestion)


def one_cluster(suggestion: str) -> Failure:
    """Most images are in one cluster."""
    says = "{value:.0%} of the images are in the largest cluster"
    return Failure("one_cluster", "cluster/largest_share", 0.5, inf, says, suggestion)
