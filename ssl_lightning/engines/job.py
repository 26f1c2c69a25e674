"""Job: one of several independent jobs that share tasks, such as those of a Slurm array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ssl_lightning.errors import UsageError

TaskT = TypeVar("TaskT")


@dataclass(frozen=True)
class Job:
    """One of several independent jobs that make the parts of one file.

    Attributes:
        number: From 1.
        count: Number of jobs.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parsed(cls, text: str) -> "Job":
        """The job of a text such as 3/64.

        Raises:
            UsageError: For another text.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UsageError(f"found part={text!r}; expected i/n with i from 1 to n, such as 3/64")
        return cls(int(number), int(count))

    def share(self, tasks: Sequence[TaskT]) -> Sequence[TaskT]:
        """The tasks of this job."""
        return tasks[self.number - 1 :: self.count]
