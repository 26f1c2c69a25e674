"""Failure: a known way in which training fails, the metric that shows it, and a suggestion. Methods list theirs."""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Failure:
    """One known way to fail: a metric of the run within a range that healthy runs do not reach.

    Args:
        name: `doctor/<name>` is 1 while the failure lasts, else 0.
        metric: Name of the metric in metrics.csv; its mean over the last steps is tested.
        low: The run fails above this value.
        high: The run fails below this value.
        message: Description, with `{value}` for the mean.
        suggestion: Command-line options to change, for the settings of the run.
        since: Name of a metric that changes from 0 to 1. For a few hundred steps after the change, the tested value is
            the mean difference of `metric` from its extrapolated trend before the change, in either direction. Nothing
            is tested if there are too few rows before the change.
        falls: Decrease of `metric` per step that is not counted as a difference, since learning is no failure.
    """

    name: str
    metric: str
    low: float
    high: float
    message: str
    suggestion: str
    since: str | None = None
    falls: float = 0.0

    def holds(self, value: float) -> bool:
        """Whether a value is in the failing range."""
        return self.low < value < self.high


# Limits separate the values of healthy runs of configs/ in their first 500 steps from those of failed runs;
# docs/troubleshooting.md has the figures.


def stuck_at_chance(suggestion: str, high: float = 1.002) -> Failure:
    """The loss stays at ln K: predictions are equal for all images.

    Args:
        suggestion: See `Failure`.
        high: Upper limit of the ratio of loss and ln K. Infinite for methods in which equal predictions need not be
            uniform, so that the loss can exceed ln K.
    """
    message = "the loss is {value:.4f} of ln K: predictions are equal for all images"
    return Failure("stuck_at_chance", "train/loss_over_chance", 0.998, high, message, suggestion)


def equal_embeddings(suggestion: str) -> Failure:
    """All images have the same embedding."""
    message = "the standard deviation of embeddings is {value:.4f} of its largest value: images have equal embeddings"
    return Failure("equal_embeddings", "train/embedding_std", -inf, 0.02, message, suggestion)


def rank_one(suggestion: str) -> Failure:
    """Embeddings lie on one line."""
    message = "embeddings vary in {value:.2f} directions: they have rank one"
    return Failure("rank_one", "train/embedding_rank", -inf, 1.03, message, suggestion)


def unused_prototypes(suggestion: str) -> Failure:
    """Few prototypes or clusters are ever the nearest one."""
    message = "the number of prototypes in use is {value:.1%} of that of uniform assignments"
    return Failure("unused_prototypes", "train/prototypes_used", -inf, 0.1, message, suggestion)


def queue_blow_up(suggestion: str) -> Failure:
    """The loss jumps when codes are balanced with a queue of embeddings of an outdated network.

    The loss first falls, since the batch is separated from the queue and receives prototypes of its own, and then rises
    above chance.
    """
    message = "the loss changed by {value:.3f} of ln K from its trend when the queue was filled"
    since, falls = "train/queue_in_use", 5e-4  # the steepest fall of healthy runs after their first steps
    return Failure("queue_blow_up", "train/loss_over_chance", 0.05, inf, message, suggestion, since, falls)


def unnormalized_inputs(suggestion: str) -> Failure:
    """Input images are far from mean 0 or standard deviation 1."""
    message = "views are {value:.2f} away from mean 0 or standard deviation 1"
    return Failure("unnormalized_inputs", "train/input_offset", 0.5, inf, message, suggestion)


def small_batch(suggestion: str) -> Failure:
    """Far fewer images are balanced at a time than there are prototypes."""
    message = "codes are balanced over {value:.3f} images per prototype"
    return Failure("small_batch", "train/rows_per_prototype", -inf, 1 / 16, message, suggestion)


def one_cluster(suggestion: str) -> Failure:
    """Most images are in one cluster."""
    message = "{value:.0%} of the images are in the largest cluster"
    return Failure("one_cluster", "cluster/largest_share", 0.5, inf, message, suggestion)
