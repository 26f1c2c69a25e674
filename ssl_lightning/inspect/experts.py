"""A student of Divide and Contrast with its base, its experts and their clusters."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.evaluation.similarity import linear_cka, shared_neighbors
from ssl_lightning.inspect.clustered import Clusters
from ssl_lightning.inspect.embedded import MOST_IMAGES, NEIGHBORS, Features, agreement_of_neighbors, features
from ssl_lightning.inspect.run import Run, load_run
from ssl_lightning.inspect.tables import table
from ssl_lightning.methods import Distill

BASE, STUDENT = "base", "student"


@dataclass(frozen=True, eq=False)
class Division:
    """The networks of Divide and Contrast.

    Attributes:
        runs: The base, each expert as "expert 0", "expert 1", ... and the student, by name.
        clusters: The cluster of each image, which is the number of its expert.
    """

    runs: Mapping[str, Run]
    clusters: Clusters

    @property
    def student(self) -> Run:
        """The run of the last stage."""
        return self.runs[STUDENT]

    def __str__(self) -> str:
        """Number of experts and images."""
        return f"{len(self.runs) - 2} experts; {self.clusters}"


def load_division(run: Run) -> Division:
    """The base and the experts that a student has learned from.

    Args:
        run: The run of a `Distill`, the last stage of Divide and Contrast.

    Raises:
        UsageError: For a run of another method.
        DataError: If the file of an earlier stage is not there. Relative paths count from the current folder, as for
            the command of the run, or from a folder that holds the run.
    """
    method = run.method
    if not isinstance(method, Distill):
        raise UsageError(
            f"found a run of {type(method).__name__}, {run.name}; expected one of Distill, the last stage of Divide "
            "and Contrast"
        )
    paths = {BASE: method.base, **{f"expert {k}": path for k, path in enumerate(method.experts)}}
    runs = {name: _with_images_of(run, load_run(_found(path, run, name))) for name, path in paths.items()}
    labels = method.pseudo_labels.rows[:, 0].long()
    distances = torch.full((len(labels),), torch.nan)
    if (file := _found_or_none(method.clusters, run)) is not None:
        clustering = Clustering.load(file)[0]
        distances = clustering.distances if torch.equal(clustering.labels.long(), labels) else distances
    clusters = Clusters(labels, distances, len(method.experts), "file", run.step)
    return Division({**runs, STUDENT: run}, clusters)


def expert_table(division: Division) -> Any:
    """A DataFrame with a row for each expert: images, share, most frequent classes, and steps of its training.

    Args:
        division: From `load_division`.
    """
    data, rows = division.student.data, []
    names, sizes = data.training.classes, division.clusters.sizes
    for k, size in enumerate(sizes.tolist()):
        own = data.labels[division.clusters.labels == k]
        counts = own[own >= 0].bincount(minlength=len(names))
        top = [f"{names[c]} {100 * int(counts[c]) / max(size, 1):.0f} %" for c in counts.argsort(descending=True)[:3]]
        steps = division.runs[f"expert {k}"].step
        share = size / max(int(sizes.sum()), 1)
        rows.append({"expert": k, "images": size, "share": share, "classes": ", ".join(top), "steps": steps})
    return table(rows, "expert")


def agreement_of_networks(division: Division, max_images: int = MOST_IMAGES) -> Any:
    """A DataFrame of the linear CKA of each pair of networks for images of all clusters, 0 to 1.

    Args:
        division: From `load_division`.
        max_images: See `features`.
    """
    values = {name: features(run, max_images=max_images).values for name, run in division.runs.items()}
    return table([{"network": a, **{b: linear_cka(values[a], values[b]) for b in values}} for a in values], "network")


def kept_by_distillation(division: Division, max_images: int = MOST_IMAGES) -> Any:
    """A DataFrame with a row for each cluster: what the student has kept of the expert and of the base there.

    All columns are computed on the images of the cluster. `CKA` is the linear CKA with the student, `neighbors` the
    share of the 10 nearest neighbors that are the same for the student. `class` is the share of the 10 nearest
    neighbors with the class of the image, by base, expert and student; NaN without labels. Clusters with few embedded
    images are left out.

    Args:
        division: From `load_division`.
        max_images: See `features`.
    """
    found = {name: features(run, max_images=max_images) for name, run in division.runs.items()}
    own, rows = division.clusters.labels[found[STUDENT].rows], []
    for k in range(division.clusters.count):
        members = (own == k).nonzero().squeeze(1)
        if len(members) <= NEIGHBORS + 1:
            continue
        within = {
            short: _members(found[name], members)
            for short, name in (("base", BASE), ("expert", f"expert {k}"), ("student", STUDENT))
        }
        row: dict[str, float] = {"expert": k, "images": len(members)}
        row |= {f"CKA {name}": _cka(within, name) for name in ("base", "expert")}
        row |= {f"neighbors {name}": _shared(within, name) for name in ("base", "expert")}
        row |= {f"class {name}": agreement_of_neighbors(each) for name, each in within.items()}
        rows.append(row)
    return table(rows, "expert")


def other_experts(division: Division, max_images: int = MOST_IMAGES) -> Any:
    """A DataFrame of the share of neighbors of the same class, by each expert in each cluster; NaN without labels.

    A row is an expert, a column a cluster. If experts have specialized, the diagonal is the highest of its column.

    Args:
        division: From `load_division`.
        max_images: See `features`.
    """
    rows = []
    for k in range(division.clusters.count):
        found = features(division.runs[f"expert {k}"], max_images=max_images)
        own = division.clusters.labels[found.rows]
        parts = [(own == other).nonzero().squeeze(1) for other in range(division.clusters.count)]
        shares = [agreement_of_neighbors(_members(found, members)) for members in parts]
        rows.append({"expert": k} | {f"cluster {other}": share for other, share in enumerate(shares)})
    return table(rows, "expert")


def _cka(within: Mapping[str, Features], name: str) -> float:
    return linear_cka(within[name].values, within["student"].values)


def _shared(within: Mapping[str, Features], name: str) -> float:
    return shared_neighbors(within[name].values, within["student"].values, NEIGHBORS)


def _members(found: Features, members: Int[Tensor, "m"]) -> Features:
    values: Float[Tensor, "m D"] = found.values[members]
    return Features(values, found.rows[members], found.labels[members], found.layer, found.left_out)


def _with_images_of(student: Run, other: Run) -> Run:
    """A run with all images of the student: an expert was trained on some of them."""
    other.data = student.data
    return other


def _found(path: str, run: Run, name: str) -> Path:
    found = _found_or_none(path, run)
    if found is None:
        raise DataError(f"found no {path}, the {name} of {run.name}; expected it: start where its command was given")
    return found


def _found_or_none(path: str, run: Run) -> Path | None:
    """A file of an earlier stage: from the current folder, or from a folder that holds the run."""
    folders = [Path(), *(run.path.resolve().parents if run.path is not None else ())]
    return next((folder / path for folder in folders if (folder / path).is_file()), None)
