"""The fingerprint of a manifest: SHA-256 over the ids and the SHA-256 of its usable images, in the order of ids."""

import hashlib
import tempfile

import numpy as np

_RECORD = np.dtype([("id", "<i8"), ("sha256", "S32")])
_BLOCK = 1 << 16


class RowsFingerprint:
    """The SHA-256 over (sample_id as 8 bytes, little-endian; sha256 as 32 bytes) of rows, in the order of sample_id.

    Rows can be added in any order. Their records are kept in a temporary file, which is read again only where the ids
    do not ascend.

    Args:
        folder: Folder of the temporary file; None for the default.

    Attributes:
        ascending: Whether every id so far is larger than the one before, and none is negative.
        count: Number of rows.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._state, self._last, self.ascending = hashlib.sha256(), -1, True
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by `close`
        self.count = 0

    def add(self, ids: np.ndarray, digests: np.ndarray) -> None:
        """Add rows.

        Args:
            ids: [n] int64.
            digests: [n, 32] uint8.
        """
        if not len(ids):
            return
        records = np.empty(len(ids), _RECORD)
        records["id"] = ids
        records["sha256"] = np.ascontiguousarray(digests).view("S32")[:, 0]
        self.ascending &= bool(ids[0] > self._last) and bool((np.diff(ids) > 0).all())
        self._last = int(ids[-1])
        self.count += len(ids)
        content = records.tobytes()
        self._state.update(content)
        self._file.write(content)

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def hexdigest(self) -> str:
        """The fingerprint."""
        with self._file:
            if self.ascending or not self.count:
                return self._state.hexdigest()
            self._file.flush()
            records = np.memmap(self._file, _RECORD, mode="r")
            order = np.argsort(records["id"], kind="stable")
            state = hashlib.sha256()
            for start in range(0, self.count, _BLOCK):
                state.update(records[order[start : start + _BLOCK]].tobytes())
            return state.hexdigest()
