"""ExternalLoggers: the loggers of a run beside metrics.csv, such as Weights & Biases."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from ssl_lightning.errors import NonFiniteError, one_line
from ssl_lightning.report.best import probe_columns, probe_rows, summary_values
from ssl_lightning.report.cluster_rows import COLUMNS, ClusterRow
from ssl_lightning.report.table import evaluations, name_of_initial_weights
from ssl_lightning.runs.directory import RunDirectory
from ssl_lightning.runs.experiment import group_and_job
from ssl_lightning.runs.external_logger import ExternalLogger, RunIdentity

MOST_IMAGES = 8
"""Images of the report that are sent to external loggers: curves, sizes and maps, not the sheets of single clusters."""
OF_ONE_CLUSTER = "cluster-[0-9]*"


@dataclass(frozen=True)
class Results:
    """What a finished run sends.

    Attributes:
        images: Images of the report, the most important first.
        checkpoint: The last checkpoint and its sidecar.
        backbone: Tensors of its backbone by name.
        described: Description of the backbone and its preprocessing, as plain values.
        labels: Clusters of the images, None if there are none.
        clusters: Rows of the table of clusters.
        probe_sets: Names of the probe sets, the primary one first.
        facts: Metadata of the files.
    """

    images: Sequence[Path]
    checkpoint: Sequence[Path]
    backbone: dict[str, torch.Tensor] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)
    labels: torch.Tensor | None = None
    clusters: Sequence[ClusterRow] = ()
    probe_sets: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class ExternalLoggers:
    """The external loggers of a run.

    Args:
        loggers: All loggers of the run.
        run: Folder of the run.
    """

    def __init__(self, loggers: Iterable[Logger], run: RunDirectory) -> None:
        self.external_loggers = [logger for logger in loggers if isinstance(logger, ExternalLogger)]
        self.run = run

    def __bool__(self) -> bool:
        return bool(self.external_loggers)

    def introduce(self, run_id: str, job: str, config: dict[str, Any], used: Sequence[str] = ()) -> None:
        """Send the identity of the run and its configuration.

        Args:
            run_id: A short random id, which a resumed run keeps.
            job: The method, or the subcommand: the job type of a run without a stage in its name.
            config: The configuration and facts of the run, nested.
            used: Artifacts that the run takes as input.
        """
        group, job = group_and_job(self.run.name, job)
        for external_logger in self.external_loggers:
            external_logger.settle(RunIdentity(self.run.path, self.run.name, run_id, group, job))
            external_logger.log_config(config)
            external_logger.use_artifacts(used)

    def resume_after(self, step: int) -> None:
        """Announce that the rows after a step are logged again."""
        for external_logger in self.external_loggers:
            external_logger.resume_after(step)

    def alert(self, title: str, text: str) -> None:
        """Notify people of a failure, once for each title and run."""
        for external_logger in self.external_loggers:
            external_logger.alert(title, text)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """A context that reports to the loggers how the run ended, with the best and last values until then."""
        succeeded = False
        try:
            yield
            succeeded = True
        except NonFiniteError as error:
            self.alert("non-finite values", one_line(str(error)))
            raise
        finally:
            values = summary_values(self._evaluations())
            for external_logger in self.external_loggers:
                if values:
                    external_logger.log_summary(values)
                external_logger.close(succeeded)

    def hand_out(self, results: Results) -> None:
        """Send the results of a finished run."""
        rows = [row.cells() for row in results.clusters]
        probes = probe_rows(self._evaluations(), results.probe_sets)
        images = [image for image in results.images if not image.match(OF_ONE_CLUSTER)][:MOST_IMAGES]
        for external_logger in self.external_loggers:
            for image in images:
                external_logger.log_image(f"report/{image.stem}", image)
            if rows:
                external_logger.log_table("clusters", COLUMNS, rows)
            if probes:
                external_logger.log_table("probes", probe_columns(name_of_initial_weights(self.run.path)), probes)
            external_logger.log_files("checkpoint", results.checkpoint, results.facts)
            if results.backbone:
                external_logger.log_tensors("backbone", results.backbone, results.facts | results.described)
            if results.labels is not None:
                external_logger.log_array("assignments", results.labels.cpu().numpy(), results.facts)

    def _evaluations(self) -> list[tuple[int, dict[str, float]]]:
        """The evaluations in metrics.csv; none if it cannot be read, or nobody receives them."""
        try:
            return evaluations(self.run.path / "metrics.csv") if self.external_loggers else []
        except (OSError, ValueError):
            return []
