"""ExternalLoggers: loggers that outlive a loop, told who the run is, how it ended, and given what it leaves."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from ssl_lightning.runs.directory import RunDirectory
from ssl_lightning.runs.wandb import WandbRun

MOST_IMAGES = 30
"""Of the reference set, that external loggers are given: curves, and the largest clusters."""


class ExternalLoggers:
    """Those of a run's loggers that are at home elsewhere.

    Args:
        loggers: All of the run's.
        run: Its folder.
    """

    def __init__(self, loggers: Iterable[Logger], run: RunDirectory) -> None:
        self.external_loggers = [logger for logger in loggers if isinstance(logger, WandbRun)]
        self.run = run

    def introduce(self, wandb_id: str, inputs: dict[str, Any]) -> None:
        """Say where and who the run is, and what it computes."""
        for external_logger in self.external_loggers:
            external_logger.settle(self.run.path, self.run.name, wandb_id)
            external_logger.log_hyperparams(inputs)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Tell them how the run ended."""
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
        """What a finished run leaves.

        Args:
            images: Of the reference set, the most telling first.
            checkpoint: The last one and what belongs to it.
            labels: Clusters of the images, None where there are none.
            facts: What is noted beside the files.
        """
        for external_logger in self.external_loggers:
            for image in images[:MOST_IMAGES]:
                external_logger.log_image(f"report/{image.stem}", image)
            external_logger.log_files("checkpoint", checkpoint, facts)
            if labels is not None:
                external_logger.log_array("assignments", labels.cpu().numpy(), facts)
