"""Gallery: images of clusters and curves of the run, as a page to look at."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.callbacks.recluster import LearnsFromClusters
from ssl_lightning.clustering.diagnostics import cluster_metrics
from ssl_lightning.report.cluster_sheets import draw_cluster_sheets
from ssl_lightning.report.curves import CLUSTER_PANELS, draw_curves
from ssl_lightning.report.metrics_file import read_table
from ssl_lightning.report.page import Figure, Section, write_page
from ssl_lightning.report.table import results_table
from ssl_lightning.sample_state import PseudoLabels
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)


class WriteReport(pl.Callback):
    """Write `report/index.html`: evaluated numbers, curves, sizes of the clusters, and what each cluster holds.

    Images of clusters are drawn when training ends, the page again after the evaluating that follows; both then, in a
    run that was stopped in between.

    Args:
        folder: Where the page and its images go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._clusters: list[Section] = []

    @property
    def images(self) -> list[Path]:
        """What the page shows: curves, then clusters."""
        figures = [figure.file for section in self._clusters for figure in section.figures]
        shown = [self.folder / name for name in ("curves.png", "cluster-curves.png", *figures)]
        return [path for path in shown if path.is_file()]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the clusters of methods that have them."""
        if trainer.is_global_zero:
            self._clusters = []
            self._bring_up_to_date(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the page up to date after the last evaluating."""
        if trainer.is_global_zero and trainer.state.fn != "fit" and trainer.global_step:
            self._bring_up_to_date(trainer, pl_module)

    def _bring_up_to_date(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A page that cannot be written costs a line: the run has its checkpoints and numbers."""
        try:
            if not self._clusters:
                self._draw(trainer, pl_module)
            self.write()
        except OSError as error:
            log.warning("could not write the page in %s (%s); checkpoints and numbers are kept", self.folder, error)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        labels = getattr(pl_module, "pseudo_labels", None)
        if isinstance(labels, PseudoLabels) and not labels.is_empty:
            self._clusters = self._draw_clusters(trainer, cast(LearnsFromClusters, pl_module))

    def _draw_clusters(self, trainer: pl.Trainer, method: LearnsFromClusters) -> list[Section]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning when fitting
        labels, own = method.pseudo_labels.rows.cpu().long(), data.true_labels()
        sizes = [_sizes(column, method.num_clusters) for column in labels.T]
        heads = [cluster_metrics(n, c, true_labels=own) for n, c in zip(sizes, labels.T, strict=True)]
        sheets = draw_cluster_sheets(self.folder, labels[:, 0], method.num_clusters, data.training, own)
        if "nmi_labels" in heads[0]:
            sheets = replace(sheets, text=f"{sheets.text}; NMI to the classes {heads[0]['nmi_labels']:.3f}")
        return [Section("Sizes of the last clusters", _numbers(heads), self._draw_sizes(sizes)), sheets]

    def _draw_sizes(self, sizes: list[Int[Tensor, "K"]]) -> list[Figure]:
        """An image a clustering."""
        try:
            from ssl_lightning.report.clusters import draw_cluster_sizes  # matplotlib, not on every machine
        except ImportError:
            log.info("found no matplotlib: the report goes without images of the clusters' sizes")
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
            lead: What comes first.
        """
        table = self.folder.parent / "metrics.csv"
        sections = list(lead)
        if table.is_file():
            sections.append(Section("Evaluated, in percent", results_table(table)))
            rows = read_table(table)[1]
            if draw_curves(rows, self.folder / "curves.png"):
                sections.append(Section("Over the epochs", "", [Figure("curves.png", "from metrics.csv")]))
            if draw_curves(rows, self.folder / "cluster-curves.png", CLUSTER_PANELS):
                figure = Figure("cluster-curves.png", "cluster/... in metrics.csv, means over the clusterings")
                sections.append(Section("Clusters over the epochs", "", [figure]))
        sections += self._clusters
        write_page(self.folder / "index.html", self.folder.parent.name, sections)


def _sizes(labels: Int[Tensor, "N"], num_clusters: int) -> Int[Tensor, "K"]:
    return labels[labels != UNLABELLED].bincount(minlength=num_clusters)


def _numbers(heads: list[dict[str, float]]) -> str:
    """A line a metric, a column a clustering."""
    columns = {"clustering": range(len(heads))} if len(heads) > 1 else {}
    columns |= {name: [f"{head[name]:.4g}" for head in heads] for name in heads[0]}
    return "\n".join(f"{name:<14}" + "".join(f"{value:>10}" for value in values) for name, values in columns.items())
