"""One class list for several sources: classes are joined by name, never by position."""

import unicodedata
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.types import UNLABELLED

_MOST_NAMED = 5


def normalized(name: str) -> str:
    """A class name in Unicode form NFC: equal letters that are written as different bytes become equal names."""
    return unicodedata.normalize("NFC", name)


def joined_classes(lists: Sequence[list[str]]) -> list[str]:
    """The classes of the first list, followed by those that occur in later lists only; each name once.

    Args:
        lists: Class names of each source. Equal lists remain as they are.
    """
    if all(classes == lists[0] for classes in lists[1:]):
        return list(lists[0]) if lists else []
    return list(dict.fromkeys(normalized(name) for classes in lists for name in classes))


def relabeled(labels: Int[Tensor, "N"], classes: list[str], joined: list[str]) -> Int[Tensor, "N"]:
    """The labels of a source in the numbering of a joined class list.

    Args:
        labels: Positions in `classes`; `UNLABELLED` stays.
        classes: Class names of the source.
        joined: The joined list, which contains all of them.
    """
    if classes == joined[: len(classes)] or not classes:
        return labels
    place = {name: position for position, name in enumerate(joined)}
    new = torch.tensor([*(place[normalized(name)] for name in classes), UNLABELLED])
    return new[labels]  # UNLABELLED is -1, the last entry


def class_differences(train: list[str], test: list[str]) -> str:
    """A description of the classes of one side only, and of pairs of names that differ in case only; empty for none.

    Args:
        train: Class names of the training split.
        test: Class names of the test split.
    """
    here, there = ({normalized(name) for name in names} for names in (train, test))
    only_train, only_test = sorted(here - there), sorted(there - here)
    parts = [
        f"{len(names)} only in {split} ({_some(names)}{', counted as wrong' if split == 'test' else ''})"
        for split, names in (("train", only_train), ("test", only_test))
        if names
    ]
    folded = {name.casefold(): name for name in only_train}
    pairs = [f"{folded[name.casefold()]!r} and {name!r}" for name in only_test if name.casefold() in folded]
    if pairs:
        parts.append(f"{_some(pairs)} differ in case only and count as different classes")
    return "; ".join(parts)


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
