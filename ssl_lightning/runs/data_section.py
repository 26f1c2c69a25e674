"""The images of a run, for a command with its checkpoint and no data of its own."""

import logging
import os
from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints.addresses import reject_addresses
from ssl_lightning.checkpoints.load import data_section
from ssl_lightning.checkpoints.plain import reject_unbounded
from ssl_lightning.checkpoints.read import read_checkpoint
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.processes import rank
from ssl_lightning.runs.record import CONFIG
from ssl_lightning.runs.resume import changes, computed, nested

log = logging.getLogger(__name__)
CHECKPOINTS, CONFIG_FILE = "checkpoints", "config.yaml"


def run_of(checkpoint: str | Path) -> Path | None:
    """The folder of the run in which a checkpoint lies; none for a checkpoint that lies elsewhere.

    Args:
        checkpoint: Path of the file; links are followed.
    """
    folder = Path(checkpoint).resolve().parent
    return folder.parent if folder.name == CHECKPOINTS and (folder.parent / CONFIG_FILE).is_file() else None


def data_of_run(checkpoint: str | Path, option: str) -> dict[str, Any]:
    """The data section of the run of a checkpoint, a table of `class_path` and `init_args`.

    The checkpoint holds it, wherever the file lies. `config.yaml` of the run is a copy for people, which counts for a
    checkpoint without a configuration.

    Args:
        checkpoint: Path of the file.
        option: The option that names other images, for log and errors.

    Raises:
        UsageError: There is no data section.
        DataError: The checkpoint cannot be read, or its data section names an address that the user has not given.
    """
    held = read_checkpoint(checkpoint).get(CONFIG) or {}
    folder, source = run_of(checkpoint), Path(checkpoint).resolve()
    section = nested(held).get("data")
    if folder is not None and section is not None:
        _warn_of_changes(folder / CONFIG_FILE, source.name, held, option)
    elif folder is not None:
        source = folder / CONFIG_FILE
        section = data_section(source, f"name the images with {option}")
    if not isinstance(section, dict) or not isinstance(section.get("class_path"), str):
        raise UsageError(f"found {checkpoint} without the data of its run; name the images with {option}")
    reject_unbounded(section)
    reject_addresses(section)
    if rank() == 0:
        log.info(f"images: those of the run, from {os.path.relpath(source)}; {option} names others")
    return section


def _warn_of_changes(copy: Path, checkpoint: str, held: dict[str, Any], option: str) -> None:
    """Warn of a `config.yaml` that was edited since the checkpoint was written: it has no effect."""
    try:
        written = computed({"data": data_section(copy, "")})
    except DataError:
        return
    changed = changes({name: value for name, value in held.items() if name.startswith("data.")}, written)
    if changed and rank() == 0:
        named = (os.path.relpath(copy), checkpoint, "; ".join(changed[:3]), option)
        log.warning("found %s, which differs from %s: %s; the checkpoint counts, and %s names other images", *named)
