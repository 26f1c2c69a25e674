"""ExternalLogger: what a logger beside metrics.csv can receive from a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


@dataclass(frozen=True)
class RunIdentity:
    """What identifies a run.

    Attributes:
        folder: Folder of the run.
        name: Name of the run.
        id: A short random id, which a resumed run keeps.
        group: Name of the experiment, which its seeds and stages have in common.
        job: The stage of the experiment, the method, or the subcommand.
    """

    folder: Path
    name: str
    id: str
    group: str
    job: str


class ExternalLogger(Logger):
    """A logger beside metrics.csv. Each method does nothing unless a subclass overrides it; only rank 0 calls them."""

    def settle(self, identity: RunIdentity) -> None:
        """Set folder, name and id of the run, before anything is logged."""

    def resume_after(self, step: int) -> None:
        """Drop the rows after a step, which the resumed run logs again."""

    def log_config(self, config: dict[str, Any]) -> None:
        """Log the configuration and the facts of the run, as a nested table."""

    def use_artifacts(self, references: Sequence[str]) -> None:
        """Record the artifacts that the run takes as input."""

    def log_summary(self, values: dict[str, float]) -> None:
        """Log values of the whole run."""

    def log_image(self, key: str, path: Path) -> None:
        """Log an image file."""

    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table; a cell that is a path is an image file."""

    def log_files(
        self, kind: str, files: Sequence[Path], facts: dict[str, Any], aliases: Sequence[str] = ("last",)
    ) -> None:
        """Log files as the newest version of the artifact `<kind>-<run>`."""

    def log_array(self, kind: str, array: np.ndarray, facts: dict[str, Any]) -> None:
        """Log an array as `<kind>.npy`, like `log_files`."""

    def log_tensors(self, kind: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Log tensors as `<kind>.safetensors`, like `log_files`."""

    def alert(self, title: str, text: str) -> None:
        """Notify people of a failure, once for each title and run."""

    def close(self, succeeded: bool) -> None:
        """End the run."""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: Lightning logs a part of the configuration here, and `log_config` all of it."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Do nothing: Lightning calls this after every loop; `close` ends the run."""
