"""The check of the share of images that cannot be read, in every pass over a dataset."""

from collections import Counter
from collections.abc import Sequence

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import DataError

_NAMED, _TRIED = 5, 200


def described(rows: Sequence[int], dataset: ImageDataset) -> str:
    """The reasons with their counts, and the first names.

    Args:
        rows: Unreadable rows. The reasons of the first 200 are found.
        dataset: The images.
    """
    reasons = Counter(dataset.reason(row) for row in rows[:_TRIED])
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    some = f"of the first {_TRIED}: " if len(rows) > _TRIED else ""
    names = ", ".join(" ".join(dataset.name(row).split()) for row in rows[:_NAMED])  # on one line
    return f"({some}{counted}); first: {names}"


def unreadable_names(rows: Sequence[int], dataset: ImageDataset) -> dict[str, list[str]]:
    """Names by reason, of the first 200 rows.

    Args:
        rows: Unreadable rows.
        dataset: The images.
    """
    names: dict[str, list[str]] = {}
    for row in sorted(set(rows))[:_TRIED]:
        names.setdefault(dataset.reason(row), []).append(dataset.name(row))
    return names


def check_unreadable(rows: Sequence[int], dataset: ImageDataset, count: int, limit: float, where: str) -> str:
    """The warning about the rows that a pass could not read; empty for none.

    Args:
        rows: Unreadable rows.
        dataset: The images.
        count: Number of rows of the pass.
        limit: Largest fraction of unreadable rows, `data.max_unreadable`.
        where: Description of the images, such as "training images".

    Raises:
        DataError: For a larger share of them, or all rows.
    """
    if not rows:
        return ""
    found = f"{len(rows)} of {count} {where} cannot be read {described(rows, dataset)}"
    if len(rows) > limit * count or len(rows) == count:
        raise DataError(f"{found}. Remove them, or raise data.max_unreadable={limit:g}")
    return f"{found}. They are left out"
