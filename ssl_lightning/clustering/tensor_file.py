"""Tensors and metadata in a safetensors file that holds the sha256 of both, and is checked against it when read."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssl_lightning.errors import DataError

log = logging.getLogger(__name__)
DIGEST = "sha256"
"""The metadata key of the sha256."""
LONGEST_HEADER = 16 << 20
"""Bytes. A header holds a few names and a description of the data; the library would parse up to 100 MB."""
_UNREADABLE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
"""What the library raises for a damaged file, such as one with a dtype that torch lacks."""


def stable_bytes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes are a function of its content, with the sha256 of the content in its metadata.

    The library writes its metadata in an order that changes from call to call, so a stage that is made again would
    look changed to the next one, which compares sha256.

    Args:
        tensors: By name; contiguous, on the CPU.
        metadata: By name.
    """
    content = save(tensors, metadata | {DIGEST: content_digest(tensors, metadata)})
    start = 8 + int.from_bytes(content[:8], "little")
    described = json.loads(content[8:start])
    header = json.dumps(described, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors begin at a multiple of eight bytes, as the format recommends
    return len(header).to_bytes(8, "little") + header + content[start:]


def read_tensors(path: str | Path, expected: str, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file and its metadata, compared with the sha256 in it.

    A file of an earlier version has none, which is logged; the caller checks the ranges of what it reads either way.

    Args:
        path: The file.
        expected: What it should be and how to make it, for the error.
        names: Tensors that it must hold.

    Raises:
        DataError: If the file is missing, damaged or changed, or lacks one of the tensors.
    """
    try:
        _check_size(Path(path))
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted({*names, *file.keys()})}
            metadata = dict(file.metadata() or {})
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"found {path}, which is not {expected} ({reason}); make it again") from error
    digest = metadata.pop(DIGEST, None)
    if digest is None:
        log.warning("found no sha256 in %s, which an earlier version wrote: only its ranges are checked", path)
    elif digest != content_digest(tensors, metadata):
        raise DataError(f"found {path} changed since it was written (its sha256 differs); make it again")
    return tensors, metadata


def content_digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """The sha256 of names, dtypes, shapes and bytes of tensors and of metadata, in the order of their names."""
    described = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in sorted(tensors)]
    digest = hashlib.sha256(json.dumps([described, metadata], sort_keys=True).encode())
    for name in sorted(tensors):
        if tensors[name].numel():
            digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_size(path: Path) -> None:
    """Before the library parses a header: no named pipe, which would block, and no header of millions of tensors.

    Raises:
        ValueError: For either.
    """
    if not path.is_file():
        raise ValueError("no such file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header would have {length} bytes")
