"""RecentBlocks: the blocks of tables that a process has read last, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

import pyarrow as pa

MOST_BYTES = 256 << 20
"""Bytes of blocks that one process holds; one block is held whatever its size."""


class RecentBlocks:
    """Blocks by key, the least recently used of which leave first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.held = 0
        self._blocks: OrderedDict[Hashable, pa.ChunkedArray] = OrderedDict()

    def get(self, key: Hashable, read: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        """The block of a key, read if it is not held."""
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = read()
            self.held += block.nbytes
            while self.held > self.most_bytes and len(self._blocks) > 1:
                self.held -= self._blocks.popitem(last=False)[1].nbytes
        self._blocks.move_to_end(key)
        return block


RECENT = RecentBlocks()
"""Shared by all tables of a process."""
