"""Engine: carries out one function on many tasks, anywhere, and returns what finishes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ssl_lightning.errors import DataError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
Count = Callable[[int, int], None]
"""Is called with numbers of files and bytes while a task is carried out."""


class Engine(ABC):
    """Carries out tasks that are independent of each other.

    Every engine runs the same function, so results do not depend on the engine. The function is one of a module, since
    other processes import it; tasks and results are plain values. A function writes large results to a file.
    """

    @abstractmethod
    def carry_out(
        self, function: Callable[[TaskT, Count], ResultT], tasks: Sequence[TaskT], count: Count
    ) -> Iterator[tuple[int, ResultT | DataError]]:
        """Carry out tasks, and yield what each returns as soon as it is finished.

        Args:
            function: Takes a task and a function that counts what is done.
            tasks: Its arguments.
            count: Is called in this process with numbers of files and bytes that were done since the last call.

        Yields:
            The position of a task, and what the function returned, or its error if the data of the task are damaged.

        Raises:
            OSError: If a task cannot write its result.
            RunStoppedError: If a worker died and its task was not carried out again.
        """
