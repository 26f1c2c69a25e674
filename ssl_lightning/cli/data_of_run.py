"""The images of a run, for validate, test and predict with its checkpoint and no data of their own."""

from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.runs.artifacts import PREFIX, fetch
from ssl_lightning.runs.data_section import data_of_run

OPTION = "--config data/NAME or --data"
"""What names other images."""
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
    path = fetch(checkpoint, Path(runs) / ".artifacts") if checkpoint.startswith(PREFIX) else checkpoint
    section = data_of_run(path, OPTION)
    arguments = {name: value for name, value in (section.get("init_args") or {}).items() if name not in LINKED}
    return text_of({"data": {"class_path": section["class_path"], "init_args": arguments}})


def text_of(section: dict[str, Any]) -> str:
    """A configuration as one line of YAML."""
    return yaml.safe_dump(section, default_flow_style=True, width=10**6, sort_keys=False).strip()
