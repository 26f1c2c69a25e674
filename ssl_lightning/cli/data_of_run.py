"""The images of a run, for validate, test and predict with its checkpoint and no data of their own."""

import json
import logging
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.checkpoints.read import read_checkpoint
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.processes import rank
from ssl_lightning.runs.artifacts import PREFIX, fetch
from ssl_lightning.runs.data_section import data_of_run

log = logging.getLogger(__name__)
OPTION = "--config data/NAME or --data"
"""What names other images."""
PREPROCESSING = tuple(field.name for field in fields(Preprocessing))
"""Arguments of the data that belong to the network as well."""
LINKED = {"seed"}
"""Arguments of the data that other options set: `--seed_everything`."""


def config_of_run(checkpoint: str, runs: str) -> str:
    """The data section of the run of a checkpoint, as the text of a configuration.

    Args:
        checkpoint: Path, or a file in Weights & Biases.
        runs: Folder of all runs.

    Raises:
        UsageError: The run has none.
        DataError: The checkpoint cannot be read, or its data section names an address that the user has not given.
    """
    section = data_of_run(_local(checkpoint, runs), OPTION)
    arguments = {name: value for name, value in (section.get("init_args") or {}).items() if name not in LINKED}
    return text_of({"data": {"class_path": section["class_path"], "init_args": arguments}})


def preprocessing_of_run(checkpoint: str, runs: str, given: Collection[str]) -> list[str]:
    """Options with the image size, the mean and the std of a checkpoint, for images that the command names.

    Args:
        checkpoint: Path, or a file in Weights & Biases.
        runs: Folder of all runs.
        given: Names of those that the command sets itself.

    Raises:
        DataError: The checkpoint cannot be read.
    """
    described = read_checkpoint(_local(checkpoint, runs)).get("hyper_parameters") or {}
    trained = (described.get("init_args") or {}).get("preprocessing") if isinstance(described, dict) else None
    if not isinstance(trained, dict):
        return []
    trained = trained.get("init_args") or trained
    taken = {name: trained[name] for name in PREPROCESSING if name in trained and name not in given}
    if taken and rank() == 0:
        values = ", ".join(f"{name}={value}" for name, value in taken.items())
        log.info(f"images are prepared as in training: {values}; --data.{next(iter(taken))} sets another value")
    return [f"--data.{name}={json.dumps(value)}" for name, value in taken.items()]


def _local(checkpoint: str, runs: str) -> str | Path:
    """The file of a checkpoint, fetched where it is in Weights & Biases."""
    return fetch(checkpoint, Path(runs) / ".artifacts") if checkpoint.startswith(PREFIX) else checkpoint


def text_of(section: dict[str, Any]) -> str:
    """A configuration as one line of YAML."""
    return yaml.safe_dump(section, default_flow_style=True, width=10**6, sort_keys=False).strip()
