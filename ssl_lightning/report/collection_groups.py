"""Sections of the page of an image collection about groups: duplicates, clusters, outliers, and labels."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from ssl_lightning.report.cells import Cell, sheet, strip, wall
from ssl_lightning.report.charts import bars, size_curve
from ssl_lightning.report.page import Section
from ssl_lightning.words import counted

OPEN = 24
"""Clusters that are shown without a click."""
_OF_DUPLICATES = (
    "Images of a group are copies of each other: of equal bytes, or with near-equal perceptual hashes and thumbnails. "
    "The groups are those of ssl-lightning data dedup with its defaults, which keeps one image of each."
)
_OF_CLUSTERS = (
    "The first row of a cluster has the images nearest to its center, the second row those farthest from it. A click "
    "on an image shows it in the map with its nearest neighbors."
)
_OF_OUTLIERS = (
    "The images with the least similar nearest neighbors, the most unusual one first: rare content, or files that do "
    "not belong to the collection."
)
_OF_THE_TAIL = (
    "Sizes of the clusters by rank, with logarithmic axes. The dashed line is the size if all were equal. An entropy "
    "of 1 means equal sizes."
)
_OF_LABELS = (
    "Labels are used for this page alone. NMI and AMI are the agreement of clusters and labels, purity the share of "
    "images with the most frequent label of their cluster. Neighbors are the images with the most similar features."
)


@dataclass(frozen=True)
class ClusterCard:
    """A cluster with some of its images.

    Attributes:
        cluster: Its id.
        size: Number of its images.
        label: Its most frequent label; empty for none.
        share: Share of the images with this label among the labeled ones.
        images: HTML of some images, the nearest to the center first.
    """

    cluster: int
    size: int
    label: str
    share: float
    images: Sequence[str]


def duplicates_section(
    groups: int, copies: int, equal: int, shown: Sequence[tuple[str, Sequence[Cell]]]
) -> Section | None:
    """Groups of duplicates side by side; None without any.

    Args:
        groups: Number of groups.
        copies: Images that are copies of another one.
        equal: Those with equal bytes.
        shown: Words about a group, and its images; the largest groups first.
    """
    if not groups:
        return None
    parts = [f'<div class="group"><p>{_bold_first(words)}</p>{strip(cells)}</div>' for words, cells in shown]
    left = groups - len(shown)
    more = f'<p class="note">{counted(left, "smaller group")} not shown.</p>' if left else ""
    text = (
        f"{counted(groups, 'group')} with {copies:,} copies: {equal:,} of equal bytes, {copies - equal:,} near-equal."
    )
    return Section(
        "Duplicates",
        note=f"{text} {_OF_DUPLICATES}",
        markup=f'<div class="groups">{"".join(parts)}</div>{more}',
        anchor="duplicates",
    )


def tail_section(sizes: Int[Tensor, "K"], entropy: float, note: str) -> Section:
    """The long tail of clusters.

    Args:
        sizes: Of the clusters.
        entropy: Of their shares, as a fraction of that of equal ones.
        note: What the clusters are.
    """
    found = sizes[sizes > 0].sort(descending=True).values
    tenth = max(1, round(len(found) / 10))
    share = float(found[:tenth].sum() / found.sum())
    rows = [
        ("", ""),
        ("clusters", f"{len(found):,}"),
        ("largest", counted(int(found[0]), "image")),
        ("median", counted(int(found.median()), "image")),
        ("smallest", counted(int(found[-1]), "image")),
        (f"share of the largest 10 % ({counted(tenth, 'cluster')})", f"{100 * share:.1f} %"),
        ("entropy of the sizes", f"{entropy:.3f}"),
    ]
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows[1:])
    curve = size_curve(found.tolist(), "images of each cluster", "rank of the cluster")
    markup = f'<div class="charts">{curve}<figure class="facts"><table>{table}</table></figure></div>'
    return Section("Long tail", note=f"{note} {_OF_THE_TAIL}", markup=markup, anchor="tail")


def clusters_section(cards: Sequence[ClusterCard], used: int) -> Section:
    """Contact sheets of clusters; the first ones are open.

    Args:
        cards: The largest first.
        used: Number of clusters with images.
    """
    first, rest = cards[:OPEN], cards[OPEN:]
    markup = f'<div class="cards">{"".join(map(_card, first))}</div>'
    if rest:
        sizes = f"{rest[0].size:,} to {rest[-1].size:,} images"
        markup += (
            f'<details class="more"><summary>{counted(len(rest), "smaller cluster")} of {sizes}</summary>'
            f'<div class="cards">{"".join(map(_card, rest))}</div></details>'
        )
    if len(cards) < used:
        markup += f'<p class="note">{counted(used - len(cards), "smaller cluster")} not shown.</p>'
    return Section(
        f"{counted(used, 'cluster')}, the largest first", note=_OF_CLUSTERS, markup=markup, anchor="clusters"
    )


def outliers_section(cells: Sequence[Cell]) -> Section:
    """Images that are far from their nearest neighbors.

    Args:
        cells: The farthest first.
    """
    return Section("Outliers", note=_OF_OUTLIERS, markup=wall(cells), anchor="outliers")


def labels_section(
    source: str,
    counts: Sequence[tuple[str, int]],
    metrics: Sequence[tuple[str, str, str]],
    agreement: Sequence[tuple[str, int, float, float]],
) -> Section:
    """Agreement of clusters and neighbors with labels.

    Args:
        source: Where the labels come from.
        counts: Labels with their numbers of images, the largest first.
        metrics: Name, value, and value by chance.
        agreement: Label, images, mean purity of their clusters, and share of neighbors with the label.
    """
    numbers = _table([("metric", "value", "by chance"), *metrics])
    figures = f'<figure class="facts">{numbers}</figure>{bars(counts, "images by label", most=24)}'
    each = [("label", "images", "in their clusters", "of neighbors")]
    for name, count, pure, near in agreement:
        each.append((name, f"{count:,}", f"{100 * pure:.1f} %", f"{100 * near:.1f} %"))
    caption = "Share of the label in the clusters of its images, and among their neighbors"
    table = f'<figure class="facts"><figcaption>{caption}</figcaption>{_table(each)}</figure>'
    markup = f'<div class="pair"><div>{figures}</div>{table}</div>'
    return Section("Labels", note=f"{source} {_OF_LABELS}", markup=markup, anchor="labels")


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = []
    for place, row in enumerate(rows):
        kind = "td" if place else "th"
        lines.append("<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _card(card: ClusterCard) -> str:
    label = f", {100 * card.share:.0f} % {html.escape(card.label)}" if card.label else ""
    bar = f'<span class="share"><i style="width:{100 * card.share:.0f}%"></i></span>' if card.label else ""
    return (
        f"<figure><figcaption><b>{counted(card.size, 'image')}</b>{label}, cluster {card.cluster}{bar}</figcaption>"
        f"{sheet(card.images)}</figure>"
    )


def _bold_first(words: str) -> str:
    first, comma, rest = words.partition(",")
    return f"<b>{html.escape(first)}</b>{comma}{html.escape(rest)}"
