"""TensorBoardRun: TensorBoard beside metrics.csv, with one curve over all sessions of a run."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ssl_lightning.errors import one_line
from ssl_lightning.runs.external_logger import ExternalLogger, RunIdentity
from ssl_lightning.runs.last_rows import last_rows

log = logging.getLogger(__name__)
FLUSH_SECONDS, FLUSH_ROWS = 5.0, 50
"""Time and number of rows after which they are written."""


class TensorBoardRun(ExternalLogger):
    """Write the metrics of metrics.csv, under the same names, and the images of the report for TensorBoard.

    The files are in `<run>/tensorboard/`; `tensorboard --logdir runs` shows all runs of a folder. Lightning's
    `TensorBoardLogger` begins a new curve with every session of a run. It needs the extra `tensorboard`. A failure,
    such as a full disk, is one warning, and training continues.

    Raises:
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        import tensorboard  # noqa: F401  # the command line names the extra where it is missing

        self.identity: RunIdentity | None = None
        self._config = ""
        self._writer: Any = None
        self._purge_step: int | None = None
        self._step = self._unwritten = 0
        self._written_at = time.monotonic()
        self._broken = False

    @property
    def name(self) -> str | None:
        """The name of the run."""
        return self.identity.name if self.identity else None

    @property
    def version(self) -> str:
        """Always empty: runs have names, not versions."""
        return ""

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.identity.folder if self.identity else Path()

    @rank_zero_only
    def settle(self, identity: RunIdentity) -> None:
        """Set the folder of the run, before training."""
        self.identity = identity

    @rank_zero_only
    def resume_after(self, step: int) -> None:
        """Hide the rows after a step and the last ones before it, which may not have been written, and log these."""
        rows = last_rows(self.folder / "metrics.csv", step)
        self._purge_step = rows[0][0] if rows else step + 1
        for at, metrics in rows:
            self.log_metrics(metrics, at)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log a row."""
        self._step = self._step if step is None else step

        def write(writer: Any) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, self._step)
            self._unwritten += 1
            if self._unwritten >= FLUSH_ROWS or time.monotonic() - self._written_at > FLUSH_SECONDS:
                writer.flush()
                self._unwritten, self._written_at = 0, time.monotonic()

        self._attempt(write)

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Log the configuration as a text."""
        lines = yaml.safe_dump(config, sort_keys=False).splitlines()
        self._config = "\n".join(f"    {line}" for line in lines)  # Markdown for a block of code

    @rank_zero_only
    def log_image(self, key: str, path: Path) -> None:
        """Log an image of the report."""

        def write(writer: Any) -> None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                writer.add_image(key, np.asarray(image.convert("RGB")), self._step, dataformats="HWC")

        self._attempt(write)

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table as a text, without the columns of images."""
        kept = [place for place in range(len(columns)) if not any(isinstance(row[place], Path) for row in rows)]
        lines = [columns, ["---"] * len(columns), *([_shown(cell) for cell in row] for row in rows)]
        text = "\n".join(" | ".join(line[place] for place in kept) for line in lines)
        self._attempt(lambda writer: writer.add_text(key, text, self._step))

    def close(self, succeeded: bool) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._attempt(lambda writer: writer.close())
            self._writer = None

    def _attempt(self, write: Callable[[Any], object]) -> None:
        if self._broken:
            return
        try:
            write(self._open())
        except Exception as error:
            self._broken = True
            log.warning("TensorBoard stopped working (%s); training continues", one_line(str(error)))

    def _open(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._purge_step)
            self._writer.add_text("config", self._config, self._purge_step or 0)
        return self._writer


def _shown(cell: Any) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
