"""WriteReport: the page of a run, with evaluations, curves and images of the clusters."""

import logging
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl

from ssl_lightning.callbacks.cluster_sections import cluster_sections, saved_clusters
from ssl_lightning.callbacks.recluster import pseudo_labels_of
from ssl_lightning.contracts import data_of, has_training_data
from ssl_lightning.errors import one_line
from ssl_lightning.report.curves import CLUSTER_PANELS, draw_curves
from ssl_lightning.report.experts import experts_section
from ssl_lightning.report.facts import (
    OF_THE_CLUSTERS,
    OF_THE_CURVES,
    next_section,
    reading,
    recipe_section,
    run_section,
    settings_section,
    time_section,
    verdict_section,
)
from ssl_lightning.report.feature_sample import TRAINING_IMAGES
from ssl_lightning.report.feature_sections import (
    MAPS,
    draw_neighbors_of_samples,
    map_section,
    neighbor_section,
    samples_of,
)
from ssl_lightning.report.metrics_file import read_table
from ssl_lightning.report.page import Figure, Section, write_page
from ssl_lightning.report.table import name_of_initial_weights, results_table

log = logging.getLogger(__name__)


class WriteReport(pl.Callback):
    """Write `report/index.html`: evaluations, curves, cluster sizes, and images of each cluster.

    Cluster images are written at the end of training, the page again after the evaluation that follows; both at that
    evaluation, in a run that was stopped in between.

    Args:
        folder: Of the page and its images.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._clusters: list[Section] = []
        self._features: list[Section] = []
        self._probe_sets: list[str] = []
        self._images = ""

    @property
    def images(self) -> list[Path]:
        """The images of the page: curves, maps of features, then clusters."""
        figures = [figure.file for section in self._clusters for figure in section.figures]
        shown = [self.folder / name for name in ("curves.png", "cluster-curves.png", MAPS, *figures)]
        return [path for path in shown if path.is_file()]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the page with the clusters of the trained network."""
        if trainer.is_global_zero:
            self._clusters = []
            if any(sample.probe_set == TRAINING_IMAGES for sample in samples_of(self.folder).values()):
                self._draw_features(trainer)  # no evaluation follows
            self._update(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the page after the last evaluation."""
        if trainer.is_global_zero and trainer.state.fn != "fit" and trainer.global_step:
            self._draw_features(trainer)
            self._update(trainer, pl_module)

    def _update(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the page; log a warning where that fails: the run has its checkpoints and metrics."""
        if has_training_data(trainer):
            data = data_of(trainer)
            self._probe_sets = list(data.probes)
            self._images = "\n".join(report.line() for report in data.source_reports)
        try:
            if not self._clusters:
                self._draw(trainer, pl_module)
            self.write()
        except OSError as error:
            log.warning("could not write the page in %s (%s); checkpoints and metrics are kept", self.folder, error)

    def _draw_features(self, trainer: pl.Trainer) -> None:
        """The maps of features and the nearest neighbors of the last evaluation; a failure costs no run."""
        try:
            data, sampled = data_of(trainer), {sample.probe_set for sample in samples_of(self.folder).values()}
            for name in sampled & {TRAINING_IMAGES, *data.probes}:
                training, test = data.probes.get(name, (data.training, data.training))
                draw_neighbors_of_samples(self.folder, training, training.labels, test)
            self._features = self._feature_sections()
        except Exception as error:  # the run has its checkpoints and metrics
            log.warning("could not plot the features for the report (%s)", one_line(f"{type(error).__name__}: {error}"))

    def _feature_sections(self) -> list[Section]:
        start = name_of_initial_weights(self.folder.parent)
        sections = [map_section(self.folder, start), neighbor_section(self.folder, start)]
        return [each for each in sections if each is not None]

    def write_from_files(self, clusters: Sequence[Section] = ()) -> None:
        """Write the page of a run from its folder alone.

        Args:
            clusters: Sections of its clusters; their images need the data.
        """
        self._features, self._clusters = self._feature_sections(), list(clusters)
        sampled = [sample.probe_set for sample in samples_of(self.folder).values()][-1:]
        self._probe_sets = [name for name in sampled if name != TRAINING_IMAGES]
        self.write()

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clusters of the run's files; those of the method in memory where there are none."""
        labels, saved = pseudo_labels_of(pl_module), saved_clusters(self.folder.parent)
        learned = None if labels is None or labels.is_empty else labels.rows.cpu().long()
        k = getattr(pl_module, "num_clusters", None) or 0
        if learned is not None or saved:
            data = data_of(trainer)
            self._clusters = cluster_sections(self.folder, saved, learned, k, data.training, data.labels)

    def write(self, lead: Sequence[Section] = ()) -> None:
        """Write the page.

        Args:
            lead: Further sections at the top.
        """
        run = self.folder.parent
        table = run / "metrics.csv"
        sections = list(lead)
        if table.is_file():
            results = results_table(table, probe_sets=self._probe_sets, intervals=True)
            sections.append(Section("Evaluated, in percent", results, note=reading(results)))
            sections += [verdict_section(run), run_section(run)]
            rows = read_table(table)[1]
            if draw_curves(rows, self.folder / "curves.png"):
                sections.append(
                    Section("Over the epochs", "", [Figure("curves.png", "from metrics.csv")], OF_THE_CURVES)
                )
            if draw_curves(rows, self.folder / "cluster-curves.png", CLUSTER_PANELS):
                figure = Figure("cluster-curves.png", "cluster/... in metrics.csv, means over the clusterings")
                sections.append(Section("Clusters over the epochs", "", [figure], OF_THE_CLUSTERS))
        sections += self._features
        if self._images:
            sections.append(Section("Images", self._images))
        experts = experts_section(run)
        sections += [experts, *self._clusters] if experts else self._clusters
        of_files = (recipe_section(run), time_section(run), next_section(run), settings_section(run))
        sections += [each for each in of_files if each is not None]
        write_page(self.folder / "index.html", run.name, sections)
