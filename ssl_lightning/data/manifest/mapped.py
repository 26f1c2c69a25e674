"""The usable rows of a manifest as arrays in files, which all processes of a run map into memory and share.

Parquet is compressed, so it is converted once. Each column becomes one file of plain values in the order of
`sample_id`. Arrow files would have several batches, and so several arrays for each column.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_lightning.data.hashing import MISSING, OK, QUARANTINED
from ssl_lightning.data.manifest.fingerprint import RowsFingerprint
from ssl_lightning.data.manifest.places import check_place, leaves
from ssl_lightning.data.manifest.schema import NEEDED, batches_of, description_of, digests_of, files_of, names_of, pc
from ssl_lightning.errors import DataError
from ssl_lightning.files import write_text

_VERSION = 1
_KINDS = {"ids": "<i8", "container": "<i4", "offsets": "<i8", "sizes": "<i8", "ends": "<i8", "names": "u1"}
_COMPARED = 64
"""Number of rows that are compared with their files at the start of a run."""
_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class MappedManifest:
    """The usable rows of a manifest in the order of their ids.

    Attributes:
        arrays: By the names in `_KINDS`, mapped from files; changes of a process are its own.
        containers: Source, shard and the last byte that is read, for each container.
        fingerprint: Of the rows.
        left_out: Names of the other rows, by reason.
        compared: Row and SHA-256 of some evenly spaced rows.
    """

    arrays: dict[str, np.ndarray]
    containers: list[tuple[str, str, int]]
    fingerprint: str
    left_out: dict[str, list[str]]
    compared: list[tuple[int, str]]


def mapped(manifest: Path) -> MappedManifest:
    """The mapped rows of a manifest, converted at the first call for this content, beside it or in a cache folder.

    Raises:
        DataError: If the manifest is damaged, has no usable row, or names a file outside its folder.
    """
    key = _key(manifest)
    folder = _cache(manifest) / key
    with _locked(folder.parent):
        if not (folder / "rows.json").exists():
            _convert(manifest, folder)
            for other in folder.parent.iterdir():
                if other.is_dir() and other.name != key:
                    shutil.rmtree(other, ignore_errors=True)  # of earlier content; what is mapped stays
    found = json.loads((folder / "rows.json").read_text())
    arrays: dict[str, np.ndarray] = {name: np.memmap(folder / name, kind, mode="c") for name, kind in _KINDS.items()}
    return MappedManifest(
        arrays,
        [(source, shard, end) for source, shard, end in found["containers"]],
        found["fingerprint"],
        found["left_out"],
        [(row, digest) for row, digest in found["compared"]],
    )


def _key(manifest: Path) -> str:
    """Changes with the content of the files, and with where a rename puts an image, which fingerprints leave out."""
    state = hashlib.sha256(str(_VERSION).encode())
    for file in files_of(manifest):
        status = file.stat()
        described = description_of(file)
        state.update(json.dumps([status.st_size, status.st_mtime_ns, described], sort_keys=True).encode())
    return state.hexdigest()[:32]


def _cache(manifest: Path) -> Path:
    beside = manifest.with_name(f"{manifest.name}.mapped")
    if os.access(manifest.parent, os.W_OK):
        return beside
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return home / "ssl_lightning" / hashlib.sha256(os.fsencode(manifest.resolve())).hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process converts; the others of a run wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(manifest: Path, folder: Path) -> None:
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with closing(_Rows(temporary)) as rows:
            for table in batches_of(manifest, NEEDED):
                rows.add(table)
            rows.finish(manifest)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Rows:
    """The files of the mapped columns while they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: (folder / name).open("wb") for name in _KINDS}
        self.places: dict[tuple[str, str], int] = {}
        self.last: list[int] = []
        self.left_out: dict[str, list[str]] = {}
        self.fingerprint = RowsFingerprint(str(folder))
        self.shas = (folder / "shas").open("wb")
        self.end = 0

    def add(self, table: pa.Table) -> None:
        """Add the usable rows of a batch, and note the others."""
        usable = pc.equal(table["status"], OK)
        self._leave_out(table.filter(pc.invert(usable)))
        table = table.filter(usable).combine_chunks()
        if not len(table):
            return
        if table["sha256"].null_count:
            raise DataError("found a usable row of a manifest without a sha256; expected one in each: build it again")
        names = names_of(table["member"])
        if strange := next(filter(leaves, names), None):
            raise DataError(f"found the member {strange!r} in a manifest; expected a name within its shard")
        offsets, sizes = table["offset"].to_numpy(), table["size"].to_numpy()
        if (offsets < -1).any() or (sizes < 0).any():
            raise DataError("found a negative position or size in a manifest; expected positions of bytes")
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        ends = self.end + np.cumsum([len(name) for name in encoded], dtype="<i8")
        ids, digests = table["sample_id"].to_numpy(), digests_of(table["sha256"])
        self.fingerprint.add(ids, digests)
        self.shas.write(digests.tobytes())
        columns = {
            "ids": ids,
            "container": self._containers(table, offsets, sizes),
            "offsets": offsets,
            "sizes": sizes,
            "ends": ends,
        }
        for name, values in columns.items():
            self.files[name].write(np.ascontiguousarray(values, dtype=_KINDS[name]).tobytes())
        self.files["names"].write(b"".join(encoded))
        self.end = int(ends[-1])

    def _leave_out(self, table: pa.Table) -> None:
        for status, member in zip(table["status"].to_pylist(), table["member"].to_pylist(), strict=True):
            reason = "missing since the manifest was built" if status == MISSING else status.removeprefix(QUARANTINED)
            self.left_out.setdefault(reason, []).append(member)

    def _containers(self, table: pa.Table, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        pairs = list(zip(table["source"].to_pylist(), table["shard"].to_pylist(), strict=True))
        for pair in dict.fromkeys(pairs):
            if pair not in self.places:
                check_place(*pair)
                self.places[pair] = len(self.places)
                self.last.append(0)
        numbers = np.fromiter((self.places[pair] for pair in pairs), dtype=np.int32, count=len(pairs))
        for number in np.unique(numbers).tolist():
            own = (numbers == number) & (offsets >= 0)
            if own.any():
                self.last[number] = max(self.last[number], int((offsets[own] + sizes[own]).max()))
        return numbers

    def close(self) -> None:
        """Close all files."""
        for file in (*self.files.values(), self.shas, self.fingerprint):
            file.close()

    def finish(self, manifest: Path) -> None:
        """Sort by ids where they do not ascend, and write what is no array."""
        for file in (*self.files.values(), self.shas):
            file.close()
        count = self.fingerprint.count
        if not count:
            raise DataError(f"found no usable row in {manifest}; expected one of status ok at least")
        if not self.fingerprint.ascending:
            ids = np.fromfile(self.folder / "ids", "<i8")
            self._sort(np.argsort(ids, kind="stable"))
            ids.sort()
            if ids[0] < 0 or (np.diff(ids) == 0).any():
                raise DataError(f"found a sample_id in {manifest} twice or below 0; expected distinct ones")
        fingerprint = self.fingerprint.hexdigest()
        described = [description_of(file).get("fingerprint") for file in files_of(manifest)]
        if len(described) == 1 and described[0] not in (None, fingerprint):
            raise DataError(f"found {manifest} changed since it was written (its fingerprint differs); build it again")
        shas = np.memmap(self.folder / "shas", "u1", mode="r").reshape(-1, 32)
        compared = np.unique(np.linspace(0, count - 1, _COMPARED).astype(int)).tolist()
        containers = [[*pair, last] for pair, last in zip(self.places, self.last, strict=True)]
        content: dict[str, Any] = {
            "containers": containers,
            "fingerprint": fingerprint,
            "left_out": self.left_out,
            "compared": [[row, shas[row].tobytes().hex()] for row in compared],
        }
        (self.folder / "shas").unlink()
        write_text(self.folder / "rows.json", json.dumps(content))

    def _sort(self, order: np.ndarray) -> None:
        starts_ends = np.fromfile(self.folder / "ends", "<i8")
        starts = np.concatenate([[0], starts_ends[:-1]])
        block = np.memmap(self.folder / "names", "u1", mode="r") if self.end else np.zeros(0, "u1")
        with (self.folder / "names.sorted").open("wb") as file:
            for start in range(0, len(order), _BLOCK):
                rows = order[start : start + _BLOCK].tolist()
                file.write(b"".join(block[starts[row] : starts_ends[row]].tobytes() for row in rows))
        os.replace(self.folder / "names.sorted", self.folder / "names")
        np.cumsum((starts_ends - starts)[order], dtype="<i8").tofile(self.folder / "ends")
        for name in ("ids", "container", "offsets", "sizes"):
            np.fromfile(self.folder / name, _KINDS[name])[order].tofile(self.folder / name)
        shas = np.fromfile(self.folder / "shas", "S32")
        shas[order].tofile(self.folder / "shas")
