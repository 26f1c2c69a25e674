"""Guests: loggers that outlive a loop, told who the run is, how it ended, and given what it leaves."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from ssl_lightning.runs.directory import RunDirectory
from ssl_lightning.runs.wandb import WandbRun

MOST_PICTURES = 30
"""Of the gallery, that guests are given: curves, and the largest clusters."""


class Guests:
    """Those of a run's loggers that are at home elsewhere.

    Args:
        loggers: All of the run's.
        run: Its folder.
    """

    def __init__(self, loggers: Iterable[Logger], run: RunDirectory) -> None:
        self.guests = [logger for logger in loggers if isinstance(logger, WandbRun)]
        self.run = run

    def introduce(self, wandb_id: str, inputs: dict[str, Any]) -> None:
        """Say where and who the run is, and what it computes."""
        for guest in self.guests:
            guest.settle(self.run.path, self.run.name, wandb_id)
            guest.log_hyperparams(inputs)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Tell them how the run ended."""
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            for guest in self.guests:
                guest.close(succeeded)

    def hand_out(
        self, pictures: list[Path], checkpoint: list[Path], labels: torch.Tensor | None, facts: dict[str, Any]
    ) -> None:
        """What a finished run leaves.

        Args:
            pictures: Of the gallery, the most telling first.
            checkpoint: The last one and what belongs to it.
            labels: Clusters of the pictures, None where there are none.
            facts: What is noted beside the files.
        """
        for guest in self.guests:
            for picture in pictures[:MOST_PICTURES]:
                guest.log_picture(f"gallery/{picture.stem}", picture)
            guest.log_files("checkpoint", checkpoint, facts)
            if labels is not None:
                guest.log_array("assignments", labels.cpu().numpy(), facts)
