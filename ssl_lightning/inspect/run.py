"""load_run: a run folder, a checkpoint or an artifact of Weights & Biases as one object."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints.durable import LAST
from ssl_lightning.checkpoints.load import build_data, data_section, load_model
from ssl_lightning.checkpoints.plain import to_plain
from ssl_lightning.checkpoints.read import read_checkpoint
from ssl_lightning.cli.config_names import find_config
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.inspect.tables import table
from ssl_lightning.methods import Method
from ssl_lightning.report.best import probe_columns, probe_rows
from ssl_lightning.report.table import name_of_initial_weights
from ssl_lightning.runs.artifacts import PREFIX, fetch
from ssl_lightning.runs.data_section import data_of_run, run_of
from ssl_lightning.runs.summary import RunSummary, is_run, summarize

OPTION = "load_run(..., data=...)"
"""What names other images than those of the run."""


@dataclass(eq=False)
class Run:
    """A trained method with its images and results. Images and tables are read on first use.

    Attributes:
        checkpoint: The file.
        method: The model, in eval mode on the CPU; `method.embed(method.normalize(images))` gives features.
        step: Optimizer steps of the checkpoint.
        path: Folder of the run; None for a checkpoint that lies elsewhere.
        images: A configuration with a data section, where it is not that of the run.
    """

    checkpoint: Path
    method: Method
    step: int
    path: Path | None
    images: str | None = None
    computed: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Features that were computed before, see `features`."""

    @property
    def name(self) -> str:
        """Name of the folder of the run, or of the checkpoint."""
        return self.checkpoint.name if self.path is None else self.path.name

    @cached_property
    def data(self) -> Any:
        """The data module: `data.training` has the images, `data.labels` their classes, -1 where unknown.

        Raises:
            DataError: If the images are not where they were.
            UsageError: If the checkpoint does not describe its images.
        """
        if self.images is None:
            described, source = data_of_run(self.checkpoint, OPTION), str(self.checkpoint)
        else:
            source = str(find_config(self.images))
            described = data_section(source, "give the name of a configuration such as data/cifar10, or a file")
        own = to_plain(asdict(self.method.preprocessing))
        data = build_data(described | {"init_args": (described.get("init_args") or {}) | own}, source)
        try:
            data.setup("predict")
        except OSError as error:
            raise DataError(f"found no images of {self.name} ({error}); give them with {OPTION}") from error
        return data

    @cached_property
    def has_labels(self) -> bool:
        """Whether any training image has a class."""
        return bool((self.data.labels >= 0).any())

    @cached_property
    def summary(self) -> RunSummary | None:
        """State, settings, sessions and evaluations, from the folder of the run; None without a folder."""
        return None if self.path is None else summarize(self.path)

    @property
    def metrics(self) -> Any:
        """metrics.csv as a DataFrame: a row for each logged step, a column for each metric; empty without a folder."""
        rows = self.summary.rows if self.summary else []
        return table([{name: float(value) for name, value in row.items() if value} for row in rows])

    @property
    def probes(self) -> Any:
        """Evaluations as a DataFrame: a row for each metric, with its first, last and best value.

        The best value is chosen on the test images, so it is too high as an estimate. Empty without a folder.
        """
        if self.summary is None:
            return table([])
        columns = probe_columns(name_of_initial_weights(self.summary.path))
        sets = list(self.data.probes) if self._has_images else []
        rows = probe_rows(self.summary.evaluations, sets)
        return table([dict(zip(columns, row, strict=True)) for row in rows], "metric")

    @property
    def missing(self) -> list[str]:
        """What of the run is not there, a line each."""
        lines = []
        if self.summary is None:
            lines.append(f"{self.checkpoint} lies in no folder of a run: no metrics, no probes, no saved clusters")
        elif self.summary.state != "finished":
            lines.append(f"the run has not finished ({self.summary.state}): these are the weights of step {self.step}")
        if self._why_no_images:
            lines.append(f"the images cannot be opened: {self._why_no_images}")
        elif not self.has_labels:
            lines.append("no image has a label: no purity, no accuracy of neighbors")
        return lines

    @cached_property
    def _why_no_images(self) -> str:
        """Why the images cannot be opened; empty if they can."""
        try:
            _ = self.data.num_samples
        except (DataError, UsageError) as error:
            return str(error)
        return ""

    @property
    def _has_images(self) -> bool:
        return not self._why_no_images

    def __str__(self) -> str:
        """Name, method, step and images, and what is missing."""
        lines = [f"{self.name}: {type(self.method).__name__}, step {self.step:,}, {', '.join(self.method.layers)}"]
        if self._has_images:
            classes = f", {self.data.num_classes} classes" if self.has_labels else ""
            lines.append(f"{self.data.num_samples:,} images{classes}")
        return "\n".join([*lines, *self.missing])


def load_run(path: str | Path, data: str | None = None) -> Run:
    """Load a run of any method.

    The class and its settings are read from the checkpoint under the import policy (SECURITY.md). Relative paths of
    images count from the current folder, as for the command of the run.

    Args:
        path: Folder of a run, a checkpoint, or `wandb:<project>/<artifact>:<version>`.
        data: A configuration with a data section, a file or a name such as data/cifar10, if the images have moved;
            None for the images of the run.

    Raises:
        DataError: If there is no checkpoint, or it cannot be read.
        UsageError: If there is no such artifact.
    """
    if str(path).startswith(PREFIX):
        path = fetch(str(path), Path("runs") / ".artifacts")
    path = Path(path)
    checkpoint = _checkpoint_in(path) if path.is_dir() else path
    method, step = load_model(checkpoint), read_checkpoint(checkpoint).get("global_step")
    return Run(checkpoint, method, step if isinstance(step, int) else 0, run_of(checkpoint), data)


def _checkpoint_in(folder: Path) -> Path:
    """The last checkpoint of a run."""
    last = folder / "checkpoints" / LAST
    if last.is_file():
        return last
    if not is_run(folder):
        raise DataError(f"found {folder}, which is no folder of a run; expected one with checkpoints/{LAST}")
    summary = summarize(folder)
    reason = f"{summary.state}{f', {summary.reason}' if summary.reason else ''}"
    raise DataError(f"found no checkpoint in {folder} ({reason}); expected checkpoints/{LAST}: start the run again")
