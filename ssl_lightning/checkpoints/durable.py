"""Checkpoints that survive a kill at any moment: temporary file, fsync, rename, sidecar, link, in this order.

At any moment `last.ckpt` refers to a complete file, and a file is valid only with a sidecar that contains its SHA-256.
Lightning's own writer can truncate the old file first if the temporary folder is on another file system.
"""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from ssl_lightning.checkpoints.read import CorruptCheckpointError, read_checkpoint, sidecar_path
from ssl_lightning.checkpoints.structure import missing
from ssl_lightning.files import fsync_folder, write_atomically, write_text

SCHEMA = 1
LAST = "last.ckpt"


class DurableCheckpointIO(CheckpointIO):
    """The checkpoint reader and writer for Lightning."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write the file, then its sidecar."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = write_atomically(path, lambda file: _save(checkpoint, file))
        facts = {
            "schema": SCHEMA,
            "sha256": digest,
            "size": path.stat().st_size,
            "step": checkpoint.get("global_step"),
            "epoch": checkpoint.get("epoch"),
        }
        write_text(sidecar_path(path), json.dumps(facts, indent=1))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Verify, then read, always with `weights_only=True`.

        Raises:
            CorruptCheckpointError: If the file is damaged, or holds only weights, from which a run cannot be resumed.
        """
        checkpoint = read_checkpoint(path)
        if lacking := missing(checkpoint):
            raise CorruptCheckpointError(
                f"found {path} without {', '.join(lacking)}; expected a checkpoint of a run: to take its weights alone "
                "give --run.start_from"
            )
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the sidecar, then the file, so that a kill in between leaves an invalid file."""
        sidecar_path(Path(path)).unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)


def _save(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    """Save a checkpoint. Torch's archive writer hides errors of the file (no space left) behind its own."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def point_last(path: Path) -> None:
    """Point `last.ckpt` next to `path` to it, atomically."""
    temporary = path.with_name(f".{LAST}.tmp-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name)
    os.replace(temporary, path.with_name(LAST))
    fsync_folder(path.parent)
