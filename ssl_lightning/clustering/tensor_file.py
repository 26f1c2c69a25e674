"""Tensors and metadata in a safetensors file, with the SHA-256 of both, which is checked on reading."""

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
"""The metadata key of the SHA-256."""
LONGEST_HEADER = 16 << 20
"""Largest header in bytes. It holds a few names and a description of the data; the library parses up to 100 MB."""
_UNREADABLE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
"""Exceptions of the library for a damaged file, for example with a dtype that torch lacks."""


def stable_bytes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The bytes of a safetensors file as a function of its content, with the SHA-256 of the content in its metadata.

    The library writes metadata in a varying order, so that an equal stage file would look changed to the next stage,
    which compares SHA-256.

    Args:
        tensors: Contiguous tensors on the CPU, by name.
        metadata: Metadata by name.
    """
    content = save(tensors, metadata | {DIGEST: content_digest(tensors, metadata)})
    start = 8 + int.from_bytes(content[:8], "little")
    described = json.loads(content[8:start])
    header = json.dumps(described, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format recommends that tensors start at a multiple of eight bytes
    return len(header).to_bytes(8, "little") + header + content[start:]


def _why_unreadable(path: Path, expected: str, error: Exception) -> str:
    """The error message for a file that does not read: what there is instead."""
    if path.is_dir():
        inside = sorted(path.glob("*.safetensors"))
        return f"found the folder {path}; expected {expected}: {f'give {inside[0]}' if inside else 'give a file'}"
    beside = path.with_suffix(".safetensors")
    if path != beside and path.exists():
        advice = f"give {beside}" if beside.exists() else "give a .safetensors file"
        return f"found {path}, which is not {expected}: {advice}"
    return f"found {path}, which is not {expected} ({' '.join(str(error).split())[:300]}); make it again"


def read_tensors(path: str | Path, expected: str, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a file and its metadata, and compare them with their SHA-256.

    A file of an earlier version has no SHA-256, which is logged. The caller checks the ranges of values in either case.

    Args:
        path: The file.
        expected: Description of the expected file and how to make it, for the error.
        names: Required tensors.

    Raises:
        DataError: If the file is missing, damaged or changed, or lacks one of the tensors.
    """
    try:
        _check_size(Path(path))
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted({*names, *file.keys()})}
            metadata = dict(file.metadata() or {})
    except _UNREADABLE as error:
        raise DataError(_why_unreadable(Path(path), expected, error)) from error
    digest = metadata.pop(DIGEST, None)
    if digest is None:
        log.warning("found no sha256 in %s (written by an earlier version): only its ranges are checked", path)
    elif digest != content_digest(tensors, metadata):
        raise DataError(f"found {path} changed since it was written (its sha256 differs); make it again")
    return tensors, metadata


def content_digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """The SHA-256 of names, dtypes, shapes and bytes of tensors and of metadata, sorted by name."""
    described = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in sorted(tensors)]
    digest = hashlib.sha256(json.dumps([described, metadata], sort_keys=True).encode())
    for name in sorted(tensors):
        if tensors[name].numel():
            digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_size(path: Path) -> None:
    """Check the file before the library parses its header: no named pipe, which would block, and no huge header.

    Raises:
        ValueError: For either.
    """
    if not path.is_file():
        raise ValueError("no such file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header would have {length} bytes")
