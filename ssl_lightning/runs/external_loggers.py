"""ExternalLoggers: the loggers of a run that belong to other services, such as Weights & Biases."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from ssl_lightning.runs.directory import RunDirectory
from ssl_lightning.runs.wandb import WandbRun

MOST_IMAGES = 30
"""Images of the report that are sent to external loggers: curves, and the largest clusters."""


class ExternalLoggers:
    """The external loggers of a run.

    Args:
        loggers: All loggers of the run.
        run: Folder of the run.
    """

    def __init__(self, loggers: Iterable[Logger], run: RunDirectory) -> None:
        self.external_loggers = [logger for logger in loggers if isinstance(logger, WandbRun)]
        self.run = run

    def introduce(self, wandb_id: str, inputs: dict[str, Any]) -> None:
        """Send the name and id of the run and its inputs."""
        for external_logger in self.external_loggers:
            external_logger.settle(self.run.path, self.run.name, wandb_id)
            external_logger.log_hyperparams(inputs)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """A context that reports to the loggers how the run ended."""
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            for external_logger in self.external_loggers:
                external_logger.close(succeeded)

    def hand_out(
        self, images: list[Path], checkpoint: list[Path], labels: torch.Tensor | None, facts: dict[str, Any]
    ) -> None:
        """Send the results of a finished run.

        Args:
            images: Images of the report, the most important first.
            checkpoint: The last checkpoint and its sidecar.
            labels: Clusters of the images, None if there are none.
            facts: Metadata of the files.
        """
        for external_logger in self.external_loggers:
            for image in images[:MOST_IMAGES]:
                external_logger.log_image(f"report/{image.stem}", image)
            external_logger.log_files("checkpoint", checkpoint, facts)
            if labels is not None:
                external_logger.log_array("assignments", labels.cpu().numpy(), facts)
