"""Background: calls that are made one after the other in another thread, so that nobody waits for them."""

import queue
import threading
from collections.abc import Callable

MOST_WAITING = 10_000
"""Calls that may wait; a service that is so far behind has stopped."""


class Background:
    """A thread that makes calls in their order. The calls must not raise.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.Queue[tuple[Callable[[], None], threading.Event]] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], None]) -> threading.Event | None:
        """Add a call; return an event that is set after it, or None if too many are waiting."""
        done = threading.Event()
        try:
            self._calls.put_nowait((call, done))
        except queue.Full:
            return None
        return done

    def _work(self) -> None:
        while True:
            call, done = self._calls.get()
            call()
            done.set()
