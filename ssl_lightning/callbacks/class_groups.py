"""Which classes of a probe set are head and tail of the training images, for its metrics."""

from collections.abc import Mapping

from jaxtyping import Int
from torch import Tensor

from ssl_lightning.contracts import ImageTable
from ssl_lightning.evaluation.class_groups import head_and_tail

MOST_NAMED = 3
"""Classes of a group that the line names."""


def groups_of(probe: ImageTable, run: Mapping[str, int]) -> tuple[dict[str, Int[Tensor, "_c"]], str]:
    """Head and tail of the classes of a probe set, and one line that describes them; both empty without a long tail.

    Class sizes are those of the training images of the run if it has images of every class of the probe set, else those
    of the training split of the probe set. No loss of a self-supervised method depends on them.

    Args:
        probe: Training split of the probe set.
        run: Number of training images of the run, by the name of the class.
    """
    own = probe.labels[probe.labels >= 0].bincount(minlength=len(probe.classes)).tolist()
    names = [name for name, size in zip(probe.classes, own, strict=True) if size]
    of_run = bool(names) and all(run.get(name) for name in names)
    sizes = [run.get(name, 0) if size else 0 for name, size in zip(probe.classes, own, strict=True)] if of_run else own
    groups = head_and_tail(sizes)
    parts = [f"{group} ({_described(probe, sizes, classes.tolist())})" for group, classes in groups.items()]
    source = "the training images" if of_run else "its training split"
    return groups, f"{' and '.join(parts)}, by {source}" if groups else ""


def _described(probe: ImageTable, sizes: list[int], classes: list[int]) -> str:
    names = ", ".join(probe.classes[label] for label in classes[:MOST_NAMED])
    more = ", ..." if len(classes) > MOST_NAMED else ""
    what = "class" if len(classes) == 1 else "classes"
    return f"{len(classes)} {what} of {sizes[classes[0]]} to {sizes[classes[-1]]} images: {names}{more}"
