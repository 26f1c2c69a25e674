"""The configuration of a run with the facts that compare runs: method, size of the network, data, version."""

from typing import Any

from jsonargparse import Namespace

import ssl_lightning
from ssl_lightning.cli.trainer import name_of_data
from ssl_lightning.data import ImageModule
from ssl_lightning.methods import Method


def run_facts(config: dict[str, Any], method: Method, datamodule: ImageModule, options: Namespace) -> dict[str, Any]:
    """A nested table for external loggers.

    Args:
        config: The configuration as plain values.
        method: What is trained.
        datamodule: On what, set up to fit.
        options: The command line.

    Returns:
        The configuration, and `method`, `parameters`, `dataset` and `ssl_lightning`, the version of the package.
    """
    parameters = list(method.parameters())
    return {
        **config,
        "method": type(method).__name__,
        "parameters": {
            "total": sum(parameter.numel() for parameter in parameters),
            "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            "backbone": sum(parameter.numel() for parameter in method.backbone.parameters()),
        },
        "dataset": {
            "name": name_of_data(options),
            "images": datamodule.num_samples,
            "fingerprint": datamodule.fingerprint,
        },
        "ssl_lightning": ssl_lightning.__version__,
    }
