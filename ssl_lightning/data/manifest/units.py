"""Units of work of a build: a shard, or up to 65,536 files of a folder, each with the name of its part."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.manifest.annotations import state_beside
from ssl_lightning.data.manifest.places import candidates
from ssl_lightning.data.manifest.schema import VERSION, as_bytes, to_text
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.sources.folder import folder_table
from ssl_lightning.data.sources.opening import is_folder, sources_at
from ssl_lightning.data.sources.paths import divided, is_address
from ssl_lightning.data.sources.tar import is_tar
from ssl_lightning.errors import DataError, UsageError

FILES_OF_A_UNIT = 65_536
_PATTERN = re.compile(r"[*?\[{]")


@dataclass(frozen=True, eq=False)
class Files:
    """Some files of a folder, sorted by the bytes of their names."""

    names: PackedNames
    sizes: Int64[np.ndarray, "n"]
    changed: Int64[np.ndarray, "n"]
    """Times of change in nanoseconds."""


@dataclass(frozen=True, eq=False)
class Unit:
    """What one process reads, and the name of the part that it writes.

    Attributes:
        source: The source as recorded in the manifest, as text.
        shard: Path of the shard within the source, as text; empty for files of the source's folder.
        container: Path of the shard or folder on this machine.
        name: Of the part: a hash of all that determines its content.
        size: In bytes.
        changed: Time of change of the shard in nanoseconds; 0 for files of a folder.
        files: Files of a folder; None for a shard.
    """

    source: str
    shard: str
    container: str
    name: str
    size: int
    changed: int
    files: Files | None

    @property
    def key(self) -> tuple[bytes, bytes, bytes]:
        """What units are sorted by; it is the order of rows."""
        first = to_text(self.files.names[0]) if self.files is not None and len(self.files.names) else ""
        return as_bytes(self.source), as_bytes(self.shard), as_bytes(first)


Recorded = list[list[str]]
"""Sources as a manifest records them: folder and, for shards, the pattern within it, each as text."""


def plan(paths: Iterable[str], out: Path, options: SourceOptions) -> tuple[list[Unit], Recorded]:
    """The units of all sources, in the order of the rows of the manifest, and the sources as they are recorded.

    Args:
        paths: Sources as the user gives them.
        out: The manifest, which decides how a source is recorded.
        options: How files are chosen and decoded.

    Raises:
        DataError: If a source is missing, or holds no file that can be read.
        UsageError: If a source is given twice.
    """
    found = [_units_of(path, out, options) for path in paths]
    units = [unit for each, _ in found for unit in each]
    units.sort(key=lambda unit: unit.key)
    for unit, other in pairwise(units):
        if (unit.source, unit.shard) == (other.source, other.shard) and unit.key == other.key:
            raise UsageError(f"found {os.path.join(unit.source, unit.shard)} twice among the sources; expected it once")
    return units, [source for _, source in found]


def described(options: SourceOptions) -> dict[str, Any]:
    """The options of a build as plain values."""
    return json.loads(json.dumps(asdict(options)))


def _units_of(path: str, out: Path, options: SourceOptions) -> tuple[list[Unit], list[str]]:
    if is_address(path):
        raise UsageError(
            f"found the address {path.split('?')[0]}; expected a local path: manifests describe local files"
        )
    found = sources_at(path)
    if is_folder(found):
        source = recorded(path, found[0], out)
        return _of_folder(source, Path(found[0]), options), [source]
    top = _top_of(path)
    root = _root_of(found, path, top)
    source = recorded(top or ".", root, out, os.path.relpath(divided(found[0])[0], root))
    units = [_of_shard(source, os.path.relpath(shard, root), shard, options) for shard in found]
    return units, [source, to_text(path[len(top) :].lstrip("/"))]


def _top_of(path: str) -> str:
    """The folder above shards, as the user gives it: the part of the path before a pattern."""
    match = _PATTERN.search(path)
    fixed = path if match is None or os.path.exists(path) else path[: match.start()]
    return os.path.dirname(fixed)


def _root_of(found: list[str], path: str, top: str) -> str:
    """The folder above shards on this machine."""
    if top and os.path.isabs(os.path.expanduser(top)):
        return os.path.expanduser(top)
    below = path[len(top) :].lstrip("/").count("/")
    folder = os.path.dirname(found[0])
    for _ in range(below):
        folder = os.path.dirname(folder)
    return folder or "."


def recorded(path: str, found: str, out: Path, inside: str = "") -> str:
    """How a source is written into the manifest, as text.

    A manifest is searched from its own folder first and then from the folder of the environment variable
    SSL_LIGHTNING_DATA, so a path that is found this way is recorded as the user gives it, and a manifest can be moved
    together with its images. Any other path is recorded as an absolute one.

    Args:
        path: As the user gives it.
        found: Where it is.
        out: The manifest.
        inside: A file in it that exists.
    """
    if ".." not in Path(path).parts and not os.path.isabs(path) and not path.startswith("~"):
        first = next(
            (place for place in candidates(path, out.parent) if os.path.exists(os.path.join(place, inside))), None
        )
        if first is not None and os.path.realpath(first) == os.path.realpath(found):
            return to_text(path)
    return to_text(os.path.abspath(found))


def _of_folder(source: str, root: Path, options: SourceOptions) -> list[Unit]:
    table, _ = folder_table(root, "", options.selection)
    shards = sorted({name for names in table.skipped.values() for name in names if is_tar(name)}, key=os.fsencode)
    if not len(table) and not shards:
        skipped = sum(len(names) for names in table.skipped.values())
        raise DataError(f"found no image in {root} ({skipped} files skipped); expected images or tar files")
    units = [_of_shard(source, shard, str(root / shard), options) for shard in shards]
    for start in range(0, len(table), FILES_OF_A_UNIT):
        rows = range(start, min(len(table), start + FILES_OF_A_UNIT))
        names = [table.names[row] for row in rows]
        changed = np.array([_changed(root / name) for name in names], dtype=np.int64)
        files = Files(PackedNames(names), table.sizes[rows.start : rows.stop], changed)
        content = [files.names.block, files.names.ends, files.sizes, files.changed]
        beside = state_beside(root, names, options)
        name = _name(options, [source, "", "files"], *(array.tobytes() for array in content), beside)
        units.append(Unit(source, "", str(root), name, int(files.sizes.sum()), 0, files))
    return units


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # removed since it was listed
        return 0


def _of_shard(source: str, shard: str, container: str, options: SourceOptions) -> Unit:
    path = divided(container)[0]
    if is_tar(path) and not path.lower().endswith(".tar"):
        raise DataError(
            f"found {path}, a compressed tar file; expected a plain one, which is read by offset: unpack it"
        )
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its rights") from error
    shard = to_text(shard)
    name = _name(options, [source, shard, "shard", status.st_size, status.st_mtime_ns])
    return Unit(source, shard, container, name, status.st_size, status.st_mtime_ns, None)


def _name(options: SourceOptions, values: list[Any], *content: bytes) -> str:
    state = hashlib.sha256(json.dumps([VERSION, described(options), *values], sort_keys=True).encode())
    for block in content:
        state.update(hashlib.sha256(block).digest())
    return state.hexdigest()[:32]
