"""Claim (Vo et al. 2024): images that are chosen evenly over clusters of a long-tailed pool train better features.

    SSL_LIGHTNING_DATA=<folder of cifar10.tar.xz> python benchmarks/claims/curation.py [--out FOLDER] [--help]

Pool: CIFAR-10-LT, 12,406 images, 5,000 of the first class to 50 of the last (data/cifar10_longtail). SimCLR of 10
epochs on the pool (96 steps each) embeds it; from its pooled features T = 4,000 images (`--images`) are chosen, and a
new SimCLR network is trained on them for equally many steps, in whole epochs (31 of 31 steps). ResNet-18 of width 8,
16 px, batch 128, 512 hidden units, warm-up of a tenth, otherwise configs/simclr.yaml. No label is used but by the
oracle. Arms:

- uniform: T random images.
- flat: T images of equal shares of K clusters by k-means++ (cosine), as far as clusters have images.
- hierarchical: of K clusters of the centroids of 5 K clusters, both with 10 rounds of resampling that keep half the
  mean size of a cluster, shares from the top down. K = T / 20 = 200, as `data curate` has it: k_1 = 1,000, k_2 = 200,
  r = 6 and 2, m = 10. Flat and hierarchical clusters give the images nearest to their centroids.
- oracle: T random images of equal shares of the classes, as far as classes have images.
- pool: the network that embeds, on all images, for the steps of the others.

Evaluated on frozen pooled features of the balanced CIFAR-10: a linear probe (logistic) and k-NN-20 that are fitted on
10,000 training images, 1,000 of each class, and evaluated on all test images. Head and tail are the three classes
with the most and with the fewest images in the pool. Three seeds; the pool's network, clusters and choices differ by
seed too.

Minutes on two cores, from the cells of the other scripts (1,480 crops a second and thread): 15 cells of 123,000
images with two crops are 21, starts and evaluations 7. In all 28.

Rule, fixed before the first run, about the linear probe. An arm wins over another if its number is higher on every
seed, or by more than two standard deviations of the paired differences. "A beats B" holds if A wins, fails if B wins,
else is undecided at this size. "Hierarchical is not behind flat" holds if it wins, or no one does and its mean is at
most one point lower; fails if flat wins; else is undecided. "The order: hierarchical >= flat > uniform" holds if
"flat beats uniform" and "hierarchical is not behind flat" do, fails if one of them does, else is undecided. "The tail
gains most" is about the gain of hierarchical over uniform on tail classes and its gain on head classes. Beside them:
hierarchical and the oracle against uniform. The table shows how even the choices are over classes too: the entropy of
the class shares, 1 for equal ones.
"""

import json
import math
import sys
import time

import torch
from cells import BATCH, SEEDS, Arm, checkpoint, compare, parse, run_cells, show
from dnc import not_behind
from dnc_probes import embed

from ssl_lightning import load_model
from ssl_lightning.callbacks.embed import embed_images
from ssl_lightning.clustering import Clustering, HierarchicalKMeans, balanced_sample, uniform_sample
from ssl_lightning.data import CuratedImages, ProbeSet
from ssl_lightning.evaluation import KNN, LabelledFeatures, LinearProbe
from ssl_lightning.evaluation.class_groups import head_and_tail
from ssl_lightning.methods import SimCLR
from ssl_lightning.models import Preprocessing, ResNet18

EPOCHS, IMAGES = 10, 4000
IMBALANCE = 100.0
NORMALIZED = {"mean": (0.4989, 0.5037, 0.4922), "std": (0.2492, 0.2473, 0.2708)}
REFERENCE = 10_000
POOL, UNIFORM, FLAT, HIERARCHICAL, ORACLE = "pool", "uniform", "flat", "hierarchical", "oracle"
CHOICES = (UNIFORM, FLAT, HIERARCHICAL, ORACLE)
ARMS = (*CHOICES, POOL)
LINEAR, KNN_20, HEAD, TAIL = "linear", "k-NN 20", "head", "tail"
EVEN = "entropy of classes, %"


def main():
    folder, scale, jobs, minutes = parse(__doc__, "curation", EPOCHS, IMAGES)
    begin = time.perf_counter()
    data = pool(scale)
    if scale.images > len(data.training) or scale.images < BATCH:
        sys.exit(f"found --images {scale.images}; expected {BATCH} to {len(data.training)}, the images of the pool")
    base = arm(POOL, scale, 1)
    if run_cells([base], folder, scale, jobs, minutes, own_images=True) is None:
        return
    for seed in SEEDS:
        choose(folder, scale, seed, data, base)
    times = (len(data.training) // BATCH) / (scale.images // BATCH)
    chosen = [arm(name, scale, times, str(chosen_file(folder, name, "SEED"))) for name in CHOICES]
    left = minutes - (time.perf_counter() - begin) / 60
    if run_cells(chosen, folder, scale, jobs, left, own_images=True) is None:
        return
    found = evaluate_all(folder, scale, [*chosen, base], data)
    figures = {name: {column: found[name][column] for column in (KNN_20, LINEAR)} for name in ARMS}
    before = {column: found["untrained"][column] for column in (KNN_20, LINEAR)}
    extra = {column: {name: found[name][column] for name in ARMS} for column in (HEAD, TAIL, EVEN)}
    took = (time.perf_counter() - begin) / 60
    show(folder, "curation", figures, before, scale, took, outcomes(found), extra, by_seed=LINEAR)


def pool(scale, **options):
    """The images to choose from."""
    size = {"image_size": scale.image_size}
    return CuratedImages(path="cifar10.tar.xz", imbalance=IMBALANCE, num_workers=0, **size, **NORMALIZED, **options)


def arm(name, scale, times, subset=None):
    """SimCLR on the pool, or on the images that a file chooses from it; the script evaluates, not the run."""
    steps = max(1, round(times * scale.epochs))
    data = {"imbalance": IMBALANCE, "subset": {"path": subset} if subset else None}
    data |= {key: list(value) for key, value in NORMALIZED.items()}
    model = {"hidden": [512], "projection": 128, "schedule": {"init_args": {"warmup_epochs": steps / 10}}}
    settings = {"model": {"init_args": model}, "data": {"init_args": data}, "trainer": {"limit_val_batches": 0}}
    return Arm(name, "simclr.yaml", settings, times)


def chosen_file(folder, name, seed):
    return folder / f"{name}-{seed}.safetensors"


def choose(folder, scale, seed, data, base):
    """A file for each choice, with the cluster 0 of the chosen images; files that are there are kept."""
    if all(chosen_file(folder, name, seed).exists() for name in CHOICES):
        return
    rows, features = embed_images(load_model(checkpoint(folder, base, seed)), data, progress=False)
    if len(rows) != len(data.training):
        sys.exit(f"found {len(data.training) - len(rows)} images that cannot be read; expected none")
    labels = data.training.labels
    k = scale.images // 20
    flat = HierarchicalKMeans((), "cosine", rounds=0).tree(features, k, seed)
    tree = HierarchicalKMeans((5 * k,), "cosine", rounds=10).tree(features, k, seed)
    classes = Clustering.without_features(labels, len(data.training.classes))
    sampled = {
        UNIFORM: uniform_sample(len(labels), scale.images, seed),
        FLAT: balanced_sample(flat, scale.images, seed),
        HIERARCHICAL: balanced_sample(tree, scale.images, seed),
        ORACLE: balanced_sample([classes], scale.images, seed, "random"),
    }
    for name, chosen in sampled.items():
        kept = torch.full((len(labels),), -1)
        kept[chosen] = 0
        Clustering.without_features(kept, 1).save(chosen_file(folder, name, seed), {"data": data.fingerprint})


def evaluate_all(folder, scale, arms, data):
    """Percent of every arm and of the untrained network in every column, one number a seed; kept in a file."""
    path = folder / "evaluated.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    probes = balanced_probes()
    sizes = list(data.class_sizes.values())
    groups = head_and_tail(sizes)
    for one in arms:
        for place, seed in enumerate(SEEDS):
            own = found.setdefault(one.name, {column: [] for column in (KNN_20, LINEAR, HEAD, TAIL, EVEN)})
            if len(own[EVEN]) > place:
                continue
            model = load_model(checkpoint(folder, one, seed))
            for column, value in evaluated(model, probes, groups, scale).items():
                own[column].append(value)
            own[EVEN].append(evenness(folder, one.name, seed, data))
            path.write_text(json.dumps(found))
    if "untrained" not in found:
        runs = [evaluated(untrained(scale, seed), probes, groups, scale) for seed in SEEDS]
        found["untrained"] = {column: [run[column] for run in runs] for column in runs[0]}
        path.write_text(json.dumps(found))
    return found


def untrained(scale, seed):
    """A network of the size of the others with random weights."""
    torch.manual_seed(seed)
    preprocessing = Preprocessing(scale.image_size, *NORMALIZED.values())
    return SimCLR(backbone=ResNet18(scale.width), hidden=(512,), projection=128, preprocessing=preprocessing).eval()


def balanced_probes():
    """1,000 training images of each class, and all test images, with their labels."""
    train, test = ProbeSet("cifar10.tar.xz/train", "cifar10.tar.xz/test").open()
    even = Clustering.without_features(train.labels, len(train.classes))
    rows = balanced_sample([even], REFERENCE, 0, "random")
    return [(split.read(own)[0], split.labels[own]) for split, own in ((train, rows), (test, torch.arange(len(test))))]


def evaluated(model, probes, groups, scale):
    """Percent by linear probe, also of head and tail classes, and by k-NN."""
    sets = [LabelledFeatures(embed(model, images, scale.accelerator), labels, 10, groups) for images, labels in probes]
    linear = LinearProbe()(*sets)
    return {
        KNN_20: 100 * KNN()(*sets)["knn/top1"],
        LINEAR: 100 * linear["linear/top1"],
        HEAD: 100 * linear["linear/top1_head"],
        TAIL: 100 * linear["linear/top1_tail"],
    }


def evenness(folder, name, seed, data):
    """Entropy of the shares of classes among the images of an arm, in percent of that of equal shares."""
    labels = data.training.labels
    if name != POOL:
        labels = labels[Clustering.load(chosen_file(folder, name, seed))[0].labels == 0]
    shares = labels.bincount(minlength=10).double() / len(labels)
    return 100 * float(torch.special.entr(shares).sum()) / math.log(10)


def outcomes(found):
    """By the rule above."""
    linear = {name: found[name][LINEAR] for name in ARMS}
    gains = {
        group: [a - b for a, b in zip(found[HIERARCHICAL][group], found[UNIFORM][group], strict=True)]
        for group in (HEAD, TAIL)
    }
    flat, behind = compare(linear[FLAT], linear[UNIFORM]), not_behind(linear[HIERARCHICAL], linear[FLAT])
    return {
        "the order: hierarchical >= flat > uniform": both(flat, behind),
        "flat beats uniform": flat,
        "hierarchical is not behind flat": behind,
        "hierarchical beats uniform": compare(linear[HIERARCHICAL], linear[UNIFORM]),
        "the tail gains most": compare(gains[TAIL], gains[HEAD]),
        "the oracle beats uniform": compare(linear[ORACLE], linear[UNIFORM]),
    }


def both(*parts):
    return next((part for part in ("fails", "undecided at this size") if part in parts), "holds")


if __name__ == "__main__":
    main()
