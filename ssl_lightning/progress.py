"""Progress of long loops: a bar on a terminal, a plain line every minute elsewhere; durations in words."""

import logging
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)
SECONDS = 60.0
"""Between two plain lines."""
FIRST = 10.0
"""Seconds until the first plain line; shorter loops have none."""


class Lines(tqdm):
    """A bar that logs a plain line where tqdm updates the bar."""

    monitor_interval = 0  # no thread, which worker processes would inherit

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Log the state; tqdm calls it with an empty message to erase the bar."""
        if msg != "":
            log.info("%s", str(self))


def progress(
    items: Iterable[Any] | None, title: str, unit: str, shown: bool = True, is_size: bool = False
) -> Any:  # a tqdm of the items; a checker of items would read one
    """A loop, or with None for items a counter, with its progress on standard error.

    Args:
        items: What the loop runs over.
        title: Description of the work, such as "decoding train.tar".
        unit: Of the items, in the plural.
        shown: False for a loop without a trace.
        is_size: Abbreviate numbers, as for bytes.
    """
    common: dict[str, Any] = {"desc": title, "leave": False, "disable": not shown, "unit_scale": is_size}
    if sys.stderr.isatty() or "ipykernel" in sys.modules:  # notebooks show bars, and no log
        return tqdm(items, unit=unit, delay=2, **common)
    known = hasattr(items, "__len__")
    line = "{desc}: {n_fmt} " + ("of {total_fmt} " if known else "") + unit + (", {remaining} left" if known else "")
    return Lines(items, unit=unit, bar_format=line, delay=FIRST, mininterval=SECONDS, maxinterval=SECONDS, **common)


def in_words(seconds: float) -> str:
    """A duration in its two largest units, such as `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (number, _) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number) or "0 s"
