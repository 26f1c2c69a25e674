"""Cell: one kind of fault, how often it is injected, and what is promised; Outcome: what happened."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from .bench import Bench


@dataclass
class Outcome:
    """What one case came to.

    Attributes:
        injected: The fault and the process or file that it hit.
        happened: In a word or two, for the table.
        problems: How this is not what was promised; empty if all is well.
        injections: Faults in this case.
        counts: How often each thing happened, where a case has several faults.
    """

    injected: str
    happened: str = ""
    problems: list[str] = field(default_factory=list)
    injections: int = 1
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One kind of fault.

    Attributes:
        name: On the command line.
        title: What is injected, for people.
        promise: What has to happen.
        injections: How many faults are the full count.
        size: Faults in a case.
        case: Carries out the case of a number, with random numbers of its own.
    """

    name: str
    title: str
    promise: str
    injections: int
    case: Callable[[Bench, random.Random, int], Outcome]
    size: int = 1

    def cases(self, scale: float) -> int:
        """Cases at a share of the full count, at least one."""
        return max(1, round(self.injections * scale / self.size))
