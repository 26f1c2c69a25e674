"""RowNumbers: numbers of logged rows that grow over all sessions of a run."""

from pathlib import Path

BLOCK = 100
"""Numbers that are reserved at once; a session that is killed loses those that it did not use."""


class RowNumbers:
    """Numbers that no earlier session of the run has used.

    Args:
        path: A file with the next free number.

    Attributes:
        was_killed: Whether the last session did not reach its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            number, *reserved = path.read_text().split()
            self._next, self.was_killed = int(number), bool(reserved)
        except (OSError, ValueError):
            self._next, self.was_killed = 0, False
        self._reserved = self._next

    def take(self, at_least: int = 0) -> int:
        """The next number."""
        number = max(self._next, at_least)
        self._next = number + 1
        if self._next > self._reserved:
            self._reserved = number + BLOCK
            self._write(f"{self._reserved} reserved")
        return number

    def release(self) -> None:
        """Give back reserved numbers, at the end of a session."""
        self._write(str(self._next))

    def _write(self, text: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text)
