"""choose-k: cluster a file of features for several K and seeds, and draw what a person chooses by."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tqdm import tqdm

from ssl_lightning.clustering import Clusterer, FeatureTransform, KMeans, UnitRows
from ssl_lightning.clustering.choosing import Choice, choices
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.errors import UsageError
from ssl_lightning.files import reject_unwritable, write_text
from ssl_lightning.report.page import Figure, Section, write_page

COLUMNS = ("objective", "stability", "imbalance", "empty", "ami", "nmi")


def main(
    features: str,
    k: tuple[int, ...] = (10, 30, 100, 300),
    seeds: int = 3,
    out: str | None = None,
    clusterer: Clusterer = KMeans(iterations=50),  # a frozen description, as configs/clusterfit/2_cluster.yaml has it
    transform: FeatureTransform | None = UnitRows(),  # a frozen description
) -> None:
    """Cluster features for several numbers of clusters and several starts; a table, an image and a page to choose by.

    Args:
        features: What `ssl-lightning embed` wrote.
        k: Every number of clusters to try, for example [10,30,100].
        seeds: Starts of each.
        out: Folder of the page; by default <features>-k.
        clusterer: How to cluster.
        transform: What is done to the features before; null for nothing.

    Raises:
        ValueError: For a damaged file, a K that is too large, or fewer than two starts.
        UsageError: If `out` cannot be written.
    """
    if seeds < 2:
        raise UsageError(f"found seeds={seeds}; expected at least 2: stability compares starts")
    stored = FeatureFile.load(features)
    few, many = min(k, default=0), max(k, default=0)
    if few < 2 or many > len(stored.rows):
        raise UsageError(f"found k={k} for {len(stored.rows)} rows; expected numbers of clusters from 2 to as many")
    folder = Path(out) if out else Path(features).with_name(f"{Path(features).stem}-k")
    reject_unwritable(folder / "choices.csv", "give --out")
    rows = stored.features if transform is None else transform(stored.features)
    found = list(choices(rows, stored.labels, clusterer, sorted(set(k)), seeds, _with_bar))
    write_text(folder / "choices.csv", _csv(found))
    table = _table(found)
    _write_page(folder, Path(features).name, found, table)
    print(f"{table}\n\ncurves: {folder / 'index.html'}")


def _with_bar(pairs: Iterable[Any]) -> Iterable[Any]:
    return tqdm(pairs, desc="Clusterings", unit="clustering", leave=False)


def _csv(found: list[Choice]) -> str:
    """One row a K and start (for stability: a pair of starts)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["k", "measure", "start", "value"])
    for choice in found:
        for name in COLUMNS:
            writer.writerows([choice.k, name, start, value] for start, value in enumerate(getattr(choice, name)))
    return text.getvalue()


def _table(found: list[Choice]) -> str:
    """Means and standard deviations over starts."""
    names = [name for name in COLUMNS if getattr(found[0], name)]
    lines = ["".join([f"{'K':>6}", *(f"{name:>18}" for name in names)])]
    for choice in found:
        lines.append("".join([f"{choice.k:>6}", *(f"{_text(getattr(choice, name)):>18}" for name in names)]))
    return "\n".join(lines)


def _text(values: list[float]) -> str:
    spread = f" ±{stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def _write_page(folder: Path, title: str, found: list[Choice], table: str) -> None:
    from ssl_lightning.report.k_curves import draw_k_curves  # matplotlib, slow to import

    draw_k_curves([asdict(choice) for choice in found]).savefig(folder / "curves.png", dpi=110)
    figures = [Figure("curves.png", "a dot a start, a line their mean")]
    write_page(folder / "index.html", title, [Section("How many clusters", table, figures)])
