"""choose-k: cluster a feature file for several K and seeds, and plot scores from which K is chosen."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ssl_lightning.clustering import Clusterer, FeatureTransform, KMeans, UnitRows
from ssl_lightning.clustering.cluster_counts import ClusterCountScore, score_cluster_counts
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.errors import UsageError
from ssl_lightning.files import reject_unwritable, write_text
from ssl_lightning.progress import progress
from ssl_lightning.report.page import Figure, Section, write_page

COLUMNS = ("objective", "stability", "imbalance", "empty", "ami", "nmi")


def main(
    features: str,
    k: tuple[int, ...] = (10, 30, 100, 300),
    seeds: int = 3,
    out: str | None = None,
    clusterer: Clusterer = KMeans(iterations=50),  # immutable; the value in configs/clusterfit/2_cluster.yaml
    transform: FeatureTransform | None = UnitRows(),  # immutable
) -> None:
    """Cluster features for several numbers of clusters and several seeds; write a table, plots and a page.

    Args:
        features: A file of `ssl-lightning embed`.
        k: Numbers of clusters, for example [10,30,100].
        seeds: Number of seeds for each.
        out: Folder of the page; by default <features>-k.
        clusterer: The clustering algorithm.
        transform: The transform of features before clustering; null for none.

    Raises:
        DataError: For a damaged file.
        UsageError: For a K that is too large, fewer than two seeds, or an `out` that cannot be written.
    """
    if seeds < 2:
        raise UsageError(f"found seeds={seeds}; expected at least 2: stability compares seeds")
    stored = FeatureFile.load(features)
    few, many = min(k, default=0), max(k, default=0)
    if few < 2 or many > len(stored.rows):
        raise UsageError(f"found k={k} for {len(stored.rows)} rows; expected numbers of clusters from 2 to as many")
    folder = Path(out) if out else Path(features).with_name(f"{Path(features).stem}-k")
    reject_unwritable(folder / "scores.csv", "give --out")
    rows = stored.features if transform is None else transform(stored.features)
    found = list(score_cluster_counts(rows, stored.labels, clusterer, sorted(set(k)), seeds, _with_bar))
    write_text(folder / "scores.csv", _csv(found))
    table = _table(found)
    _write_page(folder, Path(features).name, found, table)
    print(f"{table}\n\ncurves: {folder / 'index.html'}")


def _with_bar(pairs: Iterable[Any]) -> Iterable[Any]:
    return progress(pairs, "clustering", "clusterings")


def _csv(found: list[ClusterCountScore]) -> str:
    """One row per K and seed (for stability: per pair of seeds)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["k", "measure", "start", "value"])
    for score in found:
        for name in COLUMNS:
            writer.writerows([score.k, name, start, value] for start, value in enumerate(getattr(score, name)))
    return text.getvalue()


def _table(found: list[ClusterCountScore]) -> str:
    """Means and standard deviations over seeds."""
    names = [name for name in COLUMNS if getattr(found[0], name)]
    lines = ["".join([f"{'K':>6}", *(f"{name:>18}" for name in names)])]
    for score in found:
        lines.append("".join([f"{score.k:>6}", *(f"{_text(getattr(score, name)):>18}" for name in names)]))
    return "\n".join(lines)


def _text(values: list[float]) -> str:
    spread = f" ±{stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def _write_page(folder: Path, title: str, found: list[ClusterCountScore], table: str) -> None:
    from ssl_lightning.report.k_curves import draw_k_curves  # matplotlib, slow to import

    draw_k_curves([asdict(score) for score in found]).savefig(folder / "curves.png", dpi=110)
    figures = [Figure("curves.png", "a dot a start, a line their mean")]
    write_page(folder / "index.html", title, [Section("How many clusters", table, figures)])
