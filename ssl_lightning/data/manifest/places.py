"""Where the shards and folders of a manifest are on this machine. Paths of a manifest are untrusted text."""

import os
from pathlib import Path, PurePosixPath

from ssl_lightning.data.manifest.schema import from_text
from ssl_lightning.data.sources.paths import VARIABLE, divided
from ssl_lightning.errors import DataError


def candidates(path: str, folder: Path) -> list[str]:
    """Where a recorded path is looked for, in this order.

    Args:
        path: Of a source, or of a shard with its source.
        folder: Of the manifest.
    """
    if os.path.isabs(path):
        return [path]
    return [os.path.join(folder, path), os.path.join(os.environ.get(VARIABLE, "data"), path)]


def check_place(source: str, shard: str) -> None:
    """Reject a source or shard that leaves its folder.

    Args:
        source: As text of a manifest.
        shard: As text of a manifest.

    Raises:
        DataError: If the source contains "..", or the shard is absolute or contains "..".
    """
    if ".." in PurePosixPath(from_text(source)).parts:
        raise DataError(f"found the source {source!r} in a manifest; expected a path without '..': build it again")
    if leaves(from_text(shard)):
        raise DataError(f"found the shard {shard!r} in a manifest; expected a path within its source: build it again")


def leaves(name: str) -> bool:
    """Whether a name is absolute or contains ".."."""
    return name.startswith("/") or ".." in name.split("/") or "\0" in name


def container_of(source: str, shard: str, folder: Path) -> str:
    """The path of a shard, or of the folder of a source without shards, wherever it is found first.

    Args:
        source: As text of a manifest.
        shard: As text of a manifest.
        folder: Of the manifest.

    Raises:
        DataError: If it leaves its folder, or is not found.
    """
    check_place(source, shard)
    path = os.path.join(from_text(source), from_text(shard)) if shard else from_text(source)
    tried = candidates(path, folder)
    found = next((place for place in tried if os.path.exists(divided(place)[0])), None)
    if found is None:
        raise DataError(
            f"{' and '.join(tried)} not found; expected the images of the manifest: move them there, set {VARIABLE}, "
            "or build the manifest again"
        )
    return found
