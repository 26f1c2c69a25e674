"""The images of a stage file, for a command that shows or evaluates them."""

from typing import Any

from ssl_lightning.checkpoints.load import build_data, data_section, described_data
from ssl_lightning.cli.config_names import find_config

OTHERS = "give --data, for example data/cifar10 or a file"
"""How to name images other than those that a file describes."""


def images_of(metadata: dict[str, str], file: str, data: str | None) -> Any:
    """The data module that the user names, or else the one that a stage file describes.

    Args:
        metadata: Of the stage file.
        file: Its path, for the error.
        data: A configuration with a data section, a file or a name; null for the description in the file.

    Raises:
        DataError: There is none, or it names a class that is not admitted.
    """
    if data is not None:
        return build_data(data_section(find_config(data), OTHERS), data)
    return described_data(metadata, file, OTHERS)
