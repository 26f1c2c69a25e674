"""Claim (Yan et al. 2020, section 4): ClusterFit transfers better from noisy labels.

    SSL_LIGHTNING_DATA=<folder of cifar10.tar.xz> python benchmarks/claims/clusterfit_label_noise.py [--out FOLDER]

Source: 10,000 images of five classes of CIFAR-10 (`--images`, at most 25,000), with labels replaced by random ones
with probability p = 0, 0.5 or 0.8. Target: a linear probe on frozen features, clean, on the other five classes, which
no arm trains on (as many training images, and the 5,000 test images). Arms at each p: pretrained, on the noisy labels
for ten epochs; longer, the same for twenty; distilled, ten epochs from scratch to the softened classes of the
pretrained network; ClusterFit, ten epochs from scratch to 100 clusters of its pooled features. So the last three are
trained on equally many images. Backbone, views, batch 128, optimizer and schedule are the same in all; three seeds.

Rule, fixed before the first run. An arm wins over another if its linear accuracy is higher on every seed, or by more
than two standard deviations of the paired differences. "ClusterFit beats longer pretraining" and "ClusterFit beats
distillation" hold at p = 0.5 and at 0.8 if ClusterFit wins, fail if the other wins, else are undecided at this size.
"Its lead over longer pretraining grows with the noise" holds if the mean lead is larger at 0.5 than at 0 and larger at
0.8 than at 0.5, else fails. "Clusters say more of the classes than the noisy labels do" holds at p if the NMI of the
clusters to the true classes is above that of the noisy labels on every seed, else fails; the NMI of clusters of the
same sizes that were filled at random is printed beside it.
"""

import csv
import math
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
from cells import SEEDS, Arm, checkpoint, compare, evaluations, parse, report, run_cells, write_clusters, write_tar

from ssl_lightning.clustering import normalized_mutual_info
from ssl_lightning.data import CuratedImages
from ssl_lightning.data.packs import locate
from ssl_lightning.methods.supervised import noisy_labels

EPOCHS, K = 10, 100
NOISES = (0.0, 0.5, 0.8)
SOURCE = ("airplane", "automobile", "bird", "cat", "deer")
MOST = 25_000
"""Training images of five classes."""
VIEWS = [{"scale": [0.5, 1.0], "color_jitter": [0.0, 0.0, 0.0, 0.0], "grayscale": 0.0}]
PROBES = {
    "class_path": "ssl_lightning.callbacks.ProbeFeatures",
    "init_args": {
        "probes": [
            {"class_path": "ssl_lightning.evaluation.LinearProbe"},
            {"class_path": "ssl_lightning.evaluation.KNN"},
        ]
    },
}


def main():
    folder, scale, jobs, minutes = parse(__doc__, "clusterfit_label_noise", EPOCHS)
    if scale.images > MOST:
        sys.exit(f"found --images {scale.images}; expected at most {MOST}, the training images of five classes")
    begin = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    split_images(folder, scale.images)
    first, second = arms(folder)
    if run_cells(first, folder, scale, jobs, minutes, own_images=True) is None:
        return
    if not cluster(folder, scale, jobs, begin + 60 * minutes):
        print("not all clusters are made; the same command resumes")
        return
    left = minutes - (time.perf_counter() - begin) / 60
    if run_cells(second, folder, scale, jobs, left, own_images=True) is None:
        return
    tried = [*first, *second]
    linear = {arm.name: evaluations(folder, arm, "linear/top1") for arm in tried}
    agreement = agreements(folder)
    learned = {arm.name: agreement["clusters" if arm in second[1::2] else "labels", noise_of(arm)] for arm in tried}
    found, took = outcomes(linear, agreement), (time.perf_counter() - begin) / 60
    extra = {"NMI of what it is taught to the classes, %": learned}
    report(folder, "clusterfit_label_noise", tried, scale, took, found, extra, by_seed="linear")
    print("NMI of random clusters of the same sizes, %:", {p: agreement["chance", p] for p in NOISES})


def arms(folder):
    """Those that learn from labels, and those that learn from them."""
    target = {split: str(folder / "target.tar" / split) for split in ("train", "test")}

    def arm(kind, noise, method, times=1, **options):
        data = {"path": str(folder / "source.tar"), "views": VIEWS, "probe_sets": {"target": target}}
        model = {"class_path": f"ssl_lightning.methods.{method}", "init_args": options}
        settings = {"model": model, "data": {"init_args": data}, "trainer": {"callbacks": [PROBES]}}
        return Arm(f"{kind} p={noise:g}", "supervised.yaml", settings, times)

    first, second = [], []
    for noise in NOISES:
        labels = {"label_noise": noise, "num_classes": len(SOURCE)}
        first += [arm("pretrained", noise, "Supervised", **labels)]
        first += [arm("longer", noise, "Supervised", times=2, **labels)]
        soft = {"teacher": str(pretrained(folder, noise, "SEED")), "num_classes": len(SOURCE)}
        hard = {"clusters": f"{clusters(folder, noise, 'SEED')}.safetensors", "num_clusters": K, "decay_all": True}
        second += [arm("distilled", noise, "SoftDistillation", **soft), arm("ClusterFit", noise, "ClusterFit", **hard)]
    return first, second


def noise_of(arm):
    return float(arm.name.partition("p=")[2])


def pretrained(folder, noise, seed):
    """The checkpoint of that network."""
    return checkpoint(folder, Arm(f"pretrained p={noise:g}", "", {}), seed)


def clusters(folder, noise, seed):
    """The stage edge, without its ending; the run that writes it has the same name."""
    return folder / "runs" / f"clusters-p-{noise:g}-s{seed}"


def split_images(folder, count):
    """Two tar files: the source classes for training, the others for training and evaluating the probe."""
    if (folder / "target.tar").exists():
        return
    (pack,) = locate("cifar10.tar.xz")
    kept = {"source.tar": {}, "target.tar": {}}
    with tarfile.open(pack) as file:
        for member in file:
            if not member.isfile():
                continue
            split, name, _ = member.name.split("/")
            is_source = name in SOURCE
            if not (is_source and split == "test"):
                place = kept["source.tar" if is_source else "target.tar"].setdefault(split, {})
                place[member.name] = cast(IO[bytes], file.extractfile(member)).read()
    for name, splits in kept.items():
        for split, members in splits.items():
            if split == "train":
                chosen = np.random.default_rng(0).permutation(sorted(members))[:count]
                splits[split] = {member: members[member] for member in sorted(map(str, chosen))}
        write_tar(folder / name, {member: content for part in splits.values() for member, content in part.items()})


def cluster(folder, scale, jobs, end):
    """Whether the features of all pretrained networks are clustered; what is there is left alone."""
    cells = [(noise, seed) for seed in SEEDS for noise in NOISES]
    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(lambda cell: cluster_one(folder, scale, end, *cell), cells)))


def cluster_one(folder, scale, end, noise, seed):
    data = {"data": {"init_args": {"path": str(folder / "source.tar"), "image_size": scale.image_size}}}
    path, checkpoint = clusters(folder, noise, seed), pretrained(folder, noise, seed)
    return write_clusters(path, checkpoint, seed, "clusterfit/2_cluster.yaml", K, data, scale, end)


def agreements(folder):
    """NMI to the classes, in percent, one number a seed: of noisy labels, clusters and random ones, at each noise."""
    own = CuratedImages(path=str(folder / "source.tar")).training.labels
    found = {}
    for noise in NOISES:
        noisy = [noisy_labels(own, torch.arange(len(own)), noise, len(SOURCE), seed) for seed in SEEDS]
        found["labels", noise] = [100 * normalized_mutual_info(labels, own) for labels in noisy]
        for name, column in {"clusters": "cluster/nmi_labels", "chance": "cluster/nmi_chance"}.items():
            found[name, noise] = [100 * last(clusters(folder, noise, seed), column) for seed in SEEDS]
    return found


def last(run, column):
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)][-1]


def outcomes(linear, agreement):
    """By the rule above."""
    found, leads = {}, []
    for noise in NOISES:
        ours, longer, distilled = (linear[f"{kind} p={noise:g}"] for kind in ("ClusterFit", "longer", "distilled"))
        leads.append(math.fsum(ours) - math.fsum(longer))
        if noise > 0:
            found[f"ClusterFit beats longer pretraining at p={noise:g}"] = compare(ours, longer)
            found[f"ClusterFit beats distillation at p={noise:g}"] = compare(ours, distilled)
            pairs = zip(agreement["clusters", noise], agreement["labels", noise], strict=True)
            name = f"clusters say more of the classes than the noisy labels do at p={noise:g}"
            found[name] = "holds" if all(a > b for a, b in pairs) else "fails"
    grows = leads[0] < leads[1] < leads[2]
    found["its lead over longer pretraining grows with the noise"] = "holds" if grows else "fails"
    return found


if __name__ == "__main__":
    main()
