"""experts: which experts of a divided set of images are there, how far each is, and what it knows of its own part."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.checkpoints.durable import LAST
from ssl_lightning.checkpoints.load import load_model
from ssl_lightning.clustering.assign import nearest
from ssl_lightning.clustering.clusterer import Clustering, reject_other_images
from ssl_lightning.commands.embed import device_named
from ssl_lightning.commands.stage_images import images_of
from ssl_lightning.data.loader import batches_per_epoch
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.evaluation import KNN, LinearProbe
from ssl_lightning.evaluation.probe import LabelledFeatures
from ssl_lightning.optim.steps import steps_per_epoch, steps_per_run
from ssl_lightning.progress import progress
from ssl_lightning.runs.directory import RunDirectory
from ssl_lightning.runs.metrics import read_rows

EVALUATED = {"knn/top1": "k-NN", "linear/top1": "linear"}
"""Metrics of a probe, and their headings."""


@dataclass(frozen=True)
class Expert:
    """A run on one part.

    Attributes:
        part: Which cluster.
        run: Its folder.
        state: finished, running, or stopped, which the same command continues.
        step: Of its last row, or its last.
        planned: Steps of the whole run.
        knn: Its last k-NN accuracy on all test images, percent.
    """

    part: int
    run: RunDirectory
    state: str
    step: int
    planned: int
    knn: str


def main(
    clusters: str,
    runs: str | None = None,
    data: str | None = None,
    evaluate: bool = False,
    base: str | None = None,
    device: str = "auto",
) -> None:
    """Print the state of each expert, one per cluster: images, steps, accuracy; --evaluate true adds its own cluster.

    Args:
        clusters: What WriteClusters wrote, <path>.safetensors.
        runs: Folder of the runs; by default that of the file.
        data: A configuration with a data section, a file or a name, if the images have moved since.
        evaluate: Evaluate experts and base within each cluster: the images of both splits of the first probe set are
            assigned to clusters by the base, as the training images were, and probes are fitted within each cluster.
        base: Checkpoint of the network that was clustered; by default looked for in the folder of the runs.
        device: cpu, cuda, or auto for a GPU where there is one.

    Raises:
        ValueError: If the file is damaged or the images are not those that it was made for; with `evaluate` also if the
            base is not found, or parts are not those of nearest centroids.
    """
    clustering, metadata = Clustering.load(clusters)
    images = _images(clusters, clustering, metadata, data)
    folder = Path(runs) if runs else Path(clusters).parent
    experts = _experts(folder, images.training, clustering.labels, len(clustering.sizes))
    print(_state_table(experts, clustering))
    missing = sorted(set(range(len(clustering.sizes))) - {expert.part for expert in experts})
    if missing:
        print(
            f"no expert yet for {', '.join(map(str, missing))}: ssl-lightning fit --config "
            "configs/divide_contrast/3_expert.yaml --config configs/data/<data>.yaml "
            f"--data.subset.path {clusters} --data.subset.value {missing[0]} --run.name <name>-expert-{missing[0]}"
        )
    if evaluate:
        network = load_model(base or _base(folder, clusters, metadata)).to(device_named(device))
        print("\n" + _evaluation_table(network, experts, images, clustering, metadata))


def _images(path: str, clustering: Clustering, metadata: dict[str, str], data: str | None) -> Any:
    """The data that the clusters were made for."""
    again = "make it again with predict; --data names other images"
    images = images_of(metadata, path, data)
    own = images.fingerprint_as(metadata.get("data"))
    reject_other_images(path, clustering, metadata, own, images.num_samples, again)
    return images


# which runs are there


def _experts(folder: Path, training: Any, labels: Int[Tensor, "N"], k: int) -> list[Expert]:
    """The runs on single clusters, identified by the fingerprint of their images and not by their names."""
    rows = [(labels == part).nonzero().flatten() for part in range(k)]
    images = {part: training.select(own) for part, own in enumerate(rows) if len(own)}
    parts = {own.fingerprint_by_names: part for part, own in images.items()}  # runs from before content was read
    parts |= {own.fingerprint: part for part, own in images.items()}
    found = []
    for path in sorted(folder.glob("*/run.json")):
        run = RunDirectory(folder, path.parent.name)
        inputs = (run.read("run.json") or {}).get("inputs", {})
        part = parts.get(inputs.get("data_fingerprint"))
        if part is not None:
            found.append(_expert(part, run, inputs, len(rows[part])))
    return sorted(found, key=lambda expert: (expert.part, expert.run.name))


def _expert(part: int, run: RunDirectory, inputs: dict[str, Any], images: int) -> Expert:
    done = run.finished()
    state = "finished" if done else "running" if run.is_held else "stopped"
    table = run.path / "metrics.csv"
    rows = read_rows(table) if table.is_file() else []
    evaluations = [row["eval/knn/top1"] for row in rows if row.get("eval/knn/top1")]
    step = done["steps"] if done else max((int(row["step"]) for row in rows), default=0)
    knn = f"{100 * float(evaluations[-1]):.1f}" if evaluations else ""
    return Expert(part, run, state, step, done["steps"] if done else _planned(inputs, images), knn)


def _planned(inputs: dict[str, Any], images: int) -> int:
    """Optimizer steps that a run will have taken."""
    drop_last = inputs.get("data.init_args.drop_last", True)
    batches = batches_per_epoch(images, inputs["data.init_args.batch_size"], drop_last, world_size=1)
    limit, accumulated = inputs.get("trainer.limit_train_batches"), inputs.get("trainer.accumulate_grad_batches") or 1
    per_epoch = steps_per_epoch(batches, 1.0 if limit is None else limit, accumulated)
    max_epochs, max_steps = inputs.get("trainer.max_epochs") or -1, inputs.get("trainer.max_steps") or -1
    return steps_per_run(per_epoch, max_epochs, max_steps) if max(max_epochs, max_steps) > 0 else 0


def _state_table(experts: list[Expert], clustering: Clustering) -> str:
    header = ("part", "images", "share", "state", "steps", "k-NN of all", "run")
    lines = []
    for part, size in enumerate(clustering.sizes.tolist()):
        share = f"{100 * size / max(int(clustering.sizes.sum()), 1):.1f} %"
        own = [expert for expert in experts if expert.part == part]
        for expert in own:
            steps = f"{expert.step} of {expert.planned}"
            lines.append((str(part), str(size), share, expert.state, steps, expert.knn, str(expert.run.path)))
        if not own:
            lines.append((str(part), str(size), share, "not begun", "", "", ""))
    return _aligned([header, *lines])


# what they know


def _base(folder: Path, clusters: str, metadata: dict[str, str]) -> str:
    """The checkpoint that was clustered, among the finished runs of a folder."""
    wanted = metadata.get("checkpoint")
    for done in sorted(folder.glob("*/done.json")):
        last = done.parent / "checkpoints" / LAST
        if wanted and (RunDirectory(folder, done.parent.name).finished() or {}).get("sha256") == wanted:
            return str(last)
    raise UsageError(f"found no run in {folder} with the checkpoint from which {clusters} was made; give --base")


def _evaluation_table(
    base: Any, experts: list[Expert], data: Any, clustering: Clustering, metadata: dict[str, str]
) -> str:
    """Base and experts within each part, in percent."""
    probe = next(iter(data.probes), None)
    if probe is None:
        raise DataError("found no labeled images; expected data.probe_sets in the run that was clustered")
    parts = [_parts(base, loader, data, probe, clustering, metadata) for loader in data.probe_dataloaders(probe)]
    newest = [(expert, expert.run.newest_checkpoint()) for expert in experts]
    known = [(expert.part, expert.run.name, path) for expert, path in newest if path is not None]
    lines: list[tuple[str, ...]] = [("part", "train", "test", *EVALUATED.values(), "network")]
    for part in progress(range(len(clustering.sizes)), "evaluating", "parts"):
        rows = [(own == part).nonzero().flatten() for own in parts]
        for name, path in (("base", None), *((name, path) for own, name, path in known if own == part)):
            network = base if path is None else load_model(path).to(base.device)
            metrics = _evaluations(network, data, probe, rows)
            numbers = (f"{100 * metrics[metric]:.1f}" for metric in EVALUATED)
            lines.append((str(part), *(str(len(own)) for own in rows), *numbers, name))
    return f"within the parts of {probe}, percent\n{_aligned(lines)}"


def _evaluations(network: Any, data: Any, probe: str, rows: list[Int[Tensor, "_n"]]) -> dict[str, float]:
    """Metrics of a probe that is fitted and evaluated on these rows of both splits."""
    if not all(len(own) for own in rows):
        return dict.fromkeys(EVALUATED, math.nan)
    classes = len(data.probes[probe][0].classes)
    loaders = data.probe_dataloaders(probe, rows)
    splits = [LabelledFeatures(*_see(network, loader, data, probe), classes) for loader in loaders]
    return KNN()(*splits) | LinearProbe()(*splits)


def _parts(
    base: Any, loader: Any, data: Any, probe: str, clustering: Clustering, metadata: dict[str, str]
) -> Int[Tensor, "n"]:
    """The part of each image of a split: the nearest centroid in what was clustered."""
    metric = metadata.get("metric")
    if metric not in ("l2", "cosine"):
        raise DataError(
            "found parts that are not those of nearest centroids (made at random, of transformed features, or by an "
            "earlier version); expected parts of KMeans without a transform, to divide the images of a probe set by"
        )
    features, _ = _see(base, loader, data, probe, metadata["layer"])
    features = F.normalize(features, dim=1) if metric == "cosine" else features
    return nearest(features, clustering.centroids, cosine=metric == "cosine")


def _see(
    network: Any, loader: Any, data: Any, probe: str, layer: str | None = None
) -> tuple[Float[Tensor, "n D"], Int[Tensor, "n"]]:
    """Features and labels of the images of a loader, on the CPU."""
    features, labels = [], []
    with torch.no_grad():
        for raw in loader:
            moved = network.transfer_batch_to_device(raw, network.device, 0)
            batch = data.center(moved, data.probe_size(probe))
            features.append(network.embed(batch.views[0], layer).float().cpu())
            labels.append(batch.label.cpu())
    return torch.cat(features), torch.cat(labels)


def _aligned(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)] + [line[-1]] for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
