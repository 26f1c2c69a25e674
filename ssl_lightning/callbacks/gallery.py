"""Gallery: pictures of clusters and curves of the run, as a page to look at."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl

from ssl_lightning.callbacks.recluster import LearnsFromClusters
from ssl_lightning.clustering.diagnostics import normalized_mutual_info
from ssl_lightning.memory import PseudoLabels
from ssl_lightning.report.cluster_sheets import draw_cluster_sheets
from ssl_lightning.report.curves import draw_curves
from ssl_lightning.report.page import Figure, Section, write_page
from ssl_lightning.report.table import results_table
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)


class Gallery(pl.Callback):
    """Write `report/index.html`: judged numbers, curves, and what each cluster holds.

    Pictures of clusters are drawn when training ends, the page again after the judging that follows; both then, in a
    run that was stopped in between.

    Args:
        folder: Where the page and its pictures go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._clusters: Section | None = None

    @property
    def pictures(self) -> list[Path]:
        """What the page shows: curves, then clusters."""
        figures = self._clusters.figures if self._clusters else ()
        shown = [self.folder / "curves.png", *(self.folder / figure.file for figure in figures)]
        return [path for path in shown if path.is_file()]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the clusters of methods that have them."""
        if trainer.is_global_zero:
            self._clusters = None
            self._bring_up_to_date(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the page up to date after the last judging."""
        if trainer.is_global_zero and trainer.state.fn != "fit" and trainer.global_step:
            self._bring_up_to_date(trainer, pl_module)

    def _bring_up_to_date(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A page that cannot be written costs a line: the run has its checkpoints and numbers."""
        try:
            if self._clusters is None:
                self._draw(trainer, pl_module)
            self.write()
        except OSError as error:
            log.warning("could not write the page in %s (%s); checkpoints and numbers are kept", self.folder, error)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        labels = getattr(pl_module, "pseudo_labels", None)
        if isinstance(labels, PseudoLabels) and not labels.is_empty:
            self._clusters = self._draw_clusters(trainer, cast(LearnsFromClusters, pl_module))

    def _draw_clusters(self, trainer: pl.Trainer, method: LearnsFromClusters) -> Section:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning when fitting
        labels, own = method.pseudo_labels.rows[:, 0].cpu().long(), data.judged_labels()
        section = draw_cluster_sheets(self.folder, labels, method.num_clusters, data.training, own)
        if not bool((own != UNLABELLED).any()):
            return section
        agreement = f"NMI to the classes {normalized_mutual_info(labels, own):.3f}"
        return replace(section, text=f"{section.text}; {agreement}")

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
