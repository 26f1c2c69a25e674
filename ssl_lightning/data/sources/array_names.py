"""ArraysOfFile: the arrays of a file by name, whatever its format."""

from abc import ABC, abstractmethod
from typing import Any


class ArraysOfFile(ABC):
    """Arrays by name; each is opened when it is first used."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The names of the arrays."""

    @abstractmethod
    def array(self, name: str) -> Any:
        """An array with `shape` and `dtype`, of which rows are read by an index.

        Raises:
            DataError: If it cannot be read.
            KeyError: If there is none of this name.
        """
