"""Gallery: pictures of clusters and curves of the run, as a page to look at."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.callbacks.recluster import LearnsFromClusters
from ssl_lightning.clustering.diagnostics import normalized_mutual_info
from ssl_lightning.memory import PseudoLabels
from ssl_lightning.report.contact_sheet import contact_sheet, representatives, save_png
from ssl_lightning.report.curves import draw_curves
from ssl_lightning.report.page import Figure, Section, write_page
from ssl_lightning.report.table import results_table
from ssl_lightning.types import UNLABELLED

PICTURES = 20
"""Pictures of a cluster on the page."""
CLUSTERS = 100
"""Clusters on the page, the largest and the smallest ones."""


class Gallery(pl.Callback):
    """Write `report/index.html`: judged numbers, curves, and what each cluster holds.

    Pictures of clusters are drawn when training ends, the page again after the judging that follows.

    Args:
        folder: Where the page and its pictures go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._clusters: Section | None = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the clusters of methods that have them."""
        if not trainer.is_global_zero:
            return
        labels = getattr(pl_module, "pseudo_labels", None)
        if isinstance(labels, PseudoLabels) and not labels.is_empty:
            self._clusters = self._draw_clusters(trainer, cast(LearnsFromClusters, pl_module))
        self.write()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the page up to date after the last judging."""
        if trainer.is_global_zero and not trainer.training and self._clusters is not None:
            self.write()

    def _draw_clusters(self, trainer: pl.Trainer, method: LearnsFromClusters) -> Section:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning when fitting
        labels = method.pseudo_labels.rows[:, 0].cpu().long()
        own = data.judged_labels()
        sizes = labels[labels != UNLABELLED].bincount(minlength=method.num_clusters)
        figures = [
            self._draw_cluster(cluster, labels, own, data.training, int(sizes[cluster])) for cluster in _shown(sizes)
        ]
        used = int((sizes > 0).sum())
        text = f"{len(labels)} pictures in {used} of {method.num_clusters} clusters"
        if (own != UNLABELLED).any():
            text += f"; NMI to the classes {float(normalized_mutual_info(labels, own)):.3f}"
        return Section("Clusters, largest first", text, figures)

    def _draw_cluster(
        self, cluster: int, labels: Int[Tensor, "N"], own: Int[Tensor, "N"], pictures: Any, size: int
    ) -> Figure:
        rows = representatives(labels, None, cluster, PICTURES)
        images, valid = pictures.read(rows)
        shown = [image for image, good in zip(images, valid, strict=True) if good]
        name = f"cluster-{cluster}.png"
        save_png(contact_sheet(shown), self.folder / name)
        caption = f"cluster {cluster}: {size} pictures"
        known = own[(labels == cluster) & (own != UNLABELLED)]
        if len(known):
            top = int(known.bincount().argmax())
            title = pictures.classes[top] if top < len(pictures.classes) else str(top)
            caption += f", {100 * float((known == top).double().mean()):.0f} % {title}"
        return Figure(name, caption)

    def write(self, lead: Sequence[Section] = ()) -> None:
        """Write the page.

        Args:
            lead: What comes first.
        """
        table = self.folder.parent / "metrics.csv"
        sections = list(lead)
        if table.exists():
            sections.append(Section("Judged, in percent", results_table(table)))
            with table.open(newline="") as file:
                rows = list(csv.DictReader(file))
            if draw_curves(rows, self.folder / "curves.png"):
                sections.append(Section("Over the epochs", "", [Figure("curves.png", "from metrics.csv")]))
        sections += [self._clusters] if self._clusters else []
        write_page(self.folder / "index.html", self.folder.parent.name, sections)


def _shown(sizes: Int[Tensor, "K"]) -> list[int]:
    """Non-empty clusters by size; of more than fit, the largest and the smallest half."""
    order = [cluster for cluster in sizes.argsort(descending=True, stable=True).tolist() if sizes[cluster] > 0]
    half = CLUSTERS // 2
    return order if len(order) <= CLUSTERS else order[:half] + order[-half:]
