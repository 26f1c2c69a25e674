"""The images of a run, for validate, test and predict with its checkpoint and no data of their own."""

import logging
import os
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.checkpoints.addresses import reject_addresses
from ssl_lightning.checkpoints.plain import reject_unbounded
from ssl_lightning.checkpoints.read import read_checkpoint
from ssl_lightning.errors import UsageError
from ssl_lightning.processes import rank
from ssl_lightning.runs.artifacts import PREFIX, fetch
from ssl_lightning.runs.resume import nested
from ssl_lightning.safe_yaml import read_yaml

log = logging.getLogger(__name__)
CONFIG_FILE = "config.yaml"


def run_of(checkpoint: str | None) -> Path | None:
    """The folder of the run that a checkpoint belongs to; none for a checkpoint that lies elsewhere."""
    if not checkpoint or checkpoint.startswith(PREFIX):
        return None
    folder = Path(checkpoint).resolve().parent.parent
    return folder if (folder / CONFIG_FILE).is_file() else None


def data_of_run(checkpoint: str, runs: str) -> str:
    """The data section of the run of a checkpoint, as the text of a configuration.

    Args:
        checkpoint: Path, or a file in Weights & Biases.
        runs: Folder of all runs.

    Raises:
        UsageError: The checkpoint holds none.
        DataError: The checkpoint cannot be read, or its data section names an address that the user has not given.
    """
    folder = run_of(checkpoint)
    if folder is not None:
        section, source = read_yaml(folder / CONFIG_FILE).get("data"), folder / CONFIG_FILE
    else:
        path = str(fetch(checkpoint, Path(runs) / ".artifacts")) if checkpoint.startswith(PREFIX) else checkpoint
        section, source = nested(read_checkpoint(path).get("config") or {}).get("data"), Path(path)
    if not isinstance(section, dict) or "class_path" not in section:
        raise UsageError(
            f"found --ckpt_path {checkpoint} without the data of its run; name the images, for example --config "
            "data/cifar10"
        )
    reject_unbounded(section)
    reject_addresses(section)
    if rank() == 0:
        log.info(f"images: those of the run, from {os.path.relpath(source)}; --config data/NAME or --data names others")
    linked = {"seed"}  # with --seed_everything
    arguments = {name: value for name, value in (section.get("init_args") or {}).items() if name not in linked}
    return text_of({"data": {"class_path": section["class_path"], "init_args": arguments}})


def text_of(section: dict[str, Any]) -> str:
    """A configuration as one line of YAML."""
    return yaml.safe_dump(section, default_flow_style=True, width=10**6, sort_keys=False).strip()
