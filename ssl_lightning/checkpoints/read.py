"""Verified reads: a checkpoint is compared with its sidecar first, and reading it runs no code."""

import json
import logging
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ssl_lightning.checkpoints.structure import misfit
from ssl_lightning.errors import DataError
from ssl_lightning.files import sha256_of

log = logging.getLogger(__name__)


class CorruptCheckpointError(DataError):
    """A file that is not the checkpoint that was written."""


def sidecar_path(path: Path) -> Path:
    """Path of the sidecar of a checkpoint."""
    return path.with_suffix(".json")


def has_sidecar(path: str | Path) -> bool:
    """Whether a checkpoint has a sidecar, so that a run can be resumed from it."""
    return sidecar_path(Path(path).resolve()).is_file()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    A file with a sidecar is compared with its SHA-256. A file without one is read unchecked; it provides weights, but
    no run is resumed from it.

    Raises:
        DataError: For an address instead of a file, or a missing file.
        CorruptCheckpointError: If it was changed, holds anything but tensors and plain values, or has wrong types.
    """
    if re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]*://", str(path)):
        raise DataError(f"found the address {path}; expected a local file: download it first")
    path = Path(path)
    if not path.is_file():
        inside = path / "checkpoints" / "last.ckpt"
        advice = f"give {inside}" if inside.exists() else "check --ckpt_path (or --run.start_from)"
        raise DataError(
            f"found {'a folder' if path.is_dir() else 'no checkpoint'} at {path}; expected a file: {advice}"
        )
    path = path.resolve()
    try:
        if sidecar_path(path).is_file():
            _verify(path)
    except OSError as error:
        raise DataError(f"found {path}, which cannot be read ({error.strerror}); expected a checkpoint") from error
    try:
        reject_bombs(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other programs, which are rejected
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CorruptCheckpointError(
            f"found {path}, which does not read as a checkpoint ({why_unreadable(error)}); expected a file such as "
            "runs/NAME/checkpoints/last.ckpt"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CorruptCheckpointError(f"found {path} without a state_dict; expected a Lightning checkpoint")
    wrong = misfit(checkpoint, path.stat().st_size)
    if wrong:
        raise CorruptCheckpointError(f"found {path} with {wrong}; expected a Lightning checkpoint: give another file")
    return checkpoint


def reject_bombs(path: Path) -> None:
    """Check an archive before torch reads it: its entries have no more bytes than the file.

    Raises:
        ValueError: For entries that are compressed or overlap.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # the signature of an archive; the older format has no entries
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("compressed entries, which torch does not write")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("entries that are larger than the file")


def why_unreadable(error: Exception) -> str:
    """The reason in a few words, without torch's advice, which is to run the code in a file.

    Args:
        error: One of `UNREADABLE`.
    """
    foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and foreign:
        return f"it holds an object of {foreign[1]}, not only tensors and plain values"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, EOFError | zipfile.BadZipFile) or "PytorchStreamReader" in str(error):
        return "it is empty, incomplete or damaged"
    own = type(error) is ValueError and "entries" in str(error)  # of `reject_bombs`
    return str(error) if own else "it is no file of PyTorch"


UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError)
UNREADABLE += (LookupError, TypeError, AttributeError, AssertionError, MemoryError, ArithmeticError)
UNREADABLE += (struct.error, zipfile.BadZipFile)
"""Exceptions of torch for files of another kind; some start like a pickle and fail later."""


def whole_digest(path: Path) -> str | None:
    """The SHA-256 of a checkpoint that is complete and matches its sidecar, else None."""
    try:
        return _verify(path.resolve())
    except (CorruptCheckpointError, OSError):
        return None


def is_valid(path: Path) -> bool:
    """Whether a checkpoint is complete and matches its sidecar."""
    return whole_digest(path) is not None


def newest_valid(folder: Path) -> Path | None:
    """The valid checkpoint of the highest step, from which a run resumes. A newer invalid one is logged."""
    for path in checkpoints_by_step(folder):
        if is_valid(path):
            return path
        log.warning("found %s damaged or without a valid sidecar; falling back to an earlier checkpoint", path)
    return None


def checkpoints_by_step(folder: Path) -> list[Path]:
    """`step-<n>.ckpt` files, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.ckpt") if (match := STEP.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


STEP = re.compile(r"step-([0-9]{1,18})\.ckpt")
"""Pattern of the names of checkpoints."""


def _verify(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        CorruptCheckpointError: If it is not that in the sidecar.
    """
    facts = _read_sidecar(path)
    if path.stat().st_size != facts["size"]:
        raise CorruptCheckpointError(f"found {path} with {path.stat().st_size} bytes; its sidecar has {facts['size']}")
    digest = sha256_of(path)
    if digest != facts["sha256"]:
        raise CorruptCheckpointError(f"found {path} changed since it was written (sha256 differs from its sidecar)")
    return digest


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        if not sidecar_path(path).is_file():  # a pipe would block
            raise FileNotFoundError(sidecar_path(path))
        facts = json.loads(sidecar_path(path).read_bytes())
        if not isinstance(facts["sha256"], str) or not isinstance(facts["size"], int):
            raise TypeError("wrong types")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptCheckpointError(f"found {path} without a readable sidecar ({type(error).__name__})") from error
    if facts.get("schema") != 1:
        raise CorruptCheckpointError(f"found {path} of schema {facts.get('schema')}; this version reads schema 1")
    return facts
