"""WriteReport: the page of a run, with evaluations, curves and images of the clusters."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.callbacks.recluster import LearnsFromClusters, pseudo_labels_of
from ssl_lightning.clustering.diagnostics import cluster_metrics
from ssl_lightning.contracts import data_of, has_training_data
from ssl_lightning.errors import one_line
from ssl_lightning.report.cluster_sheets import draw_cluster_sheets
from ssl_lightning.report.curves import CLUSTER_PANELS, draw_curves
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
from ssl_lightning.types import UNLABELLED

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
        """Write the cluster figures of methods that learn from clusters."""
        if trainer.is_global_zero:
            self._clusters = []
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
            for training, test in list(data_of(trainer).probes.values())[:1]:
                draw_neighbors_of_samples(self.folder, training, training.labels, test)
            self._features = self._feature_sections()
        except Exception as error:  # the run has its checkpoints and metrics
            log.warning("could not plot the features for the report (%s)", one_line(f"{type(error).__name__}: {error}"))

    def _feature_sections(self) -> list[Section]:
        start = name_of_initial_weights(self.folder.parent)
        sections = [map_section(self.folder, start), neighbor_section(self.folder, start)]
        return [each for each in sections if each is not None]

    def write_from_files(self) -> None:
        """Write the page of a run from its folder alone: without images of the clusters, which need the data."""
        self._features = self._feature_sections()
        self._probe_sets = [sample.probe_set for sample in samples_of(self.folder).values()][-1:]
        self.write()

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        labels = pseudo_labels_of(pl_module)
        if labels is not None and not labels.is_empty and isinstance(pl_module, LearnsFromClusters):
            self._clusters = self._draw_clusters(trainer, pl_module.num_clusters, labels.rows.cpu().long())

    def _draw_clusters(self, trainer: pl.Trainer, num_clusters: int, labels: Int[Tensor, "N H"]) -> list[Section]:
        data = data_of(trainer)
        sizes = [_sizes(column, num_clusters) for column in labels.T]
        heads = [cluster_metrics(n, c, true_labels=data.labels) for n, c in zip(sizes, labels.T, strict=True)]
        sheets = draw_cluster_sheets(self.folder, labels[:, 0], num_clusters, data.training, data.labels)
        if "nmi_labels" in heads[0]:
            sheets = replace(sheets, text=f"{sheets.text}; NMI to the classes {heads[0]['nmi_labels']:.3f}")
        return [Section("Sizes of the last clusters", _numbers(heads), self._draw_sizes(sizes)), sheets]

    def _draw_sizes(self, sizes: list[Int[Tensor, "K"]]) -> list[Figure]:
        """An image for each clustering."""
        try:
            from ssl_lightning.report.clusters import draw_cluster_sizes  # needs matplotlib
        except ImportError:
            log.info("found no matplotlib: the report has no figures of the cluster sizes")
            return []
        self.folder.mkdir(parents=True, exist_ok=True)
        figures = []
        for head, counts in enumerate(sizes):
            name = f"sizes-{head}.png"
            draw_cluster_sizes(counts).savefig(self.folder / name, dpi=110)
            figures.append(Figure(name, f"clustering {head}" if len(sizes) > 1 else "the largest first"))
        return figures

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
        sections += self._clusters
        of_files = (recipe_section(run), time_section(run), next_section(run), settings_section(run))
        sections += [each for each in of_files if each is not None]
        write_page(self.folder / "index.html", run.name, sections)


def _sizes(labels: Int[Tensor, "N"], num_clusters: int) -> Int[Tensor, "K"]:
    return labels[labels != UNLABELLED].bincount(minlength=num_clusters)


def _numbers(heads: list[dict[str, float]]) -> str:
    """A line for each metric, a column for each clustering."""
    columns = {"clustering": range(len(heads))} if len(heads) > 1 else {}
    columns |= {name: [f"{head[name]:.4g}" for head in heads] for name in heads[0]}
    return "\n".join(f"{name:<14}" + "".join(f"{value:>10}" for value in values) for name, values in columns.items())
