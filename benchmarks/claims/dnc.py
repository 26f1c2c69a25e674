"""Claim (Tian et al. 2021): Divide and Contrast beats its base at equal compute.

    SSL_LIGHTNING_DATA=<folder of the packs> python benchmarks/claims/dnc.py [--out FOLDER] [--help]

Pool: 2,560 images of 32 px, 40 % of CIFAR-10, 30 % uncurated, 15 % flowers and 15 % Omniglot, each but the uncurated
ones with a long tail over its classes (the largest ten times the smallest); networks and probes are shown 16 px of them
(`--image-size 32` for all). Evaluated by linear probes on frozen pooled features of the four domains (uncurated: 18
kinds
of image), at most 2,000 training and 1,000 other test images of each; the mean over domains counts, k-NN-20 stands
beside it. No label is seen in training.

Stages as in configs/divide_contrast/ with K = 4 and 8 : 12 : 8 epochs; since steps are few, a quarter of its batches
(64, experts 32) and an eighth of the student's (32), rates of base and experts in proportion, a warm-up of a tenth; 512
hidden units. All but the students, which have AdamW, have LARS. Within a seed the k-th experts of all arms begin with
the same weights, other than those of the base and of the k'-th, and all students with the same, other than any
teacher's. Arms: base long, with the FLOPs of all stages of Divide and Contrast, counted, not assumed, in whole
epochs, rounded up: 32; DnC, experts of clusters; random parts, experts of equal parts drawn at random; full data,
experts of all images, each with a seed of its own and 12 / K epochs, in the place of the clusters' experts; base
only, the student of DnC that learns from the base alone (no expert is asked, and none is counted). Three seeds, one
base of 8 epochs for all students of a seed.

Minutes on two cores: steps alone, timed, make 43,000 images a minute with bases, 29,000 with experts, 28,000 with
students. 2,560 x 3 seeds x ((32 + 8) / 43,000 + 3 x 12 / 29,000 + 4 x 8 / 28,000) are 26 minutes, a third more beside
the steps 34. 60 processes, 11 s of start, 2 at a time: 6. Pool and evaluating: 2. In all 42.

Rule, fixed before the first run. An arm wins over another if its number is higher on every seed, or by more than two
standard deviations of the paired differences. "A beats B" holds if A wins, fails if B wins, else is undecided at this
size. Sub-claims: "Experts beat the long base on their own part, in fewer steps" is about the share of the test images
of all parts, each evaluated within its part, that a linear probe on the features of their part's expert gets right, and
the same of the long base; and on every seed each expert takes fewer steps than the long base, else it fails. An image
is of the part whose centroid is nearest to the base's hidden layer. "Clusters of the base separate domains" holds if
their NMI to the four domains is above 0.8 on every seed, else fails. "Hidden-layer clusters vote better than pooled
ones" is about the share of labelled images that have their cluster's commonest class, in as many clusters as classes.
The claim: "DnC beats the long base", undecided if DnC is not better than its own base of 8 epochs, for then the student
has not learned yet what its teachers know; "the long base is not behind experts of all images" holds if it wins or no
one does and its mean is at most one point lower, fails if the other wins, else is undecided; "experts of all images
beat those of random parts". "The paper's order" holds if these three do, fails if one of them does, else is undecided.
Beside them: "DnC beats random parts" and "DnC beats learning from the base alone".
"""

import json
import math
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from cells import SEEDS, Arm, checkpoint, compare, parse, run_cells, show, write_clusters
from dnc_pool import SHARES, every, open_probes, write_images
from dnc_probes import HIDDEN, NMI, OWN, POOLED, SAME, evaluate, evaluate_clusters
from torch.utils.flop_counter import FlopCounterMode

from ssl_lightning import load_model
from ssl_lightning.clustering import Clustering
from ssl_lightning.data import CuratedImages
from ssl_lightning.methods import Distill, MoCLR
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.types import Batch

EPOCHS, IMAGES, K = 4, 2560, 4
BASE, EXPERTS, STUDENT = 2, 3, 2
"""Epochs of the stages, in those of `--epochs`."""
BATCH, EXPERT_BATCH, STUDENT_BATCH = 64, 32, 32
OWN_SEED = 100
"""Between the seeds of two experts: networks drawn by one seed begin alike, whatever they are for."""
RATE = 0.4
"""Of base and experts at batch 256, of configs/divide_contrast/."""
HEADS = {"hidden": (512,), "projection": 128}
WRITTEN_HEADS = HEADS | {"hidden": [512]}
CLUSTERERS = {
    "clusters": {
        "class_path": "ssl_lightning.clustering.KMeans",
        "init_args": {"metric": "cosine", "init": "k-means++", "iterations": 50},
    },
    "random": {"class_path": "ssl_lightning.clustering.RandomPartition"},
}
BASIS, LONG, DNC, RANDOM, FULL, ALONE = "base", "base long", "DnC", "random parts", "full data", "base only"
STEPS, UNDECIDED = "steps of the experts and of the long base", "undecided at this size"
ARMS = (BASIS, LONG, DNC, RANDOM, FULL, ALONE)


def main():
    folder, scale, jobs, minutes = parse(__doc__, "dnc", EPOCHS, IMAGES)
    begin = time.perf_counter()
    end = begin + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder, scale.images)
    costs = flops(scale)
    if not train(folder, scale, jobs, end, costs):
        return
    found = evaluate_all(folder, scale, end)
    if found is None:
        print("not all networks are evaluated; the same command goes on")
        return
    told = {name: [part[name] for part in found["parts"]] for name in found["parts"][0]}
    linear, knn = (
        {name: [probes[column]["mean"] for probes in found[name]] for name in ("untrained", *ARMS)}
        for column in ("linear", "k-NN 20")
    )
    before = {"k-NN 20": knn["untrained"], "linear": linear["untrained"]}
    figures = {name: {"k-NN 20": knn[name], "linear": linear[name]} for name in ARMS}
    extra = {domain: {name: [one["linear"][domain] for one in found[name]] for name in ARMS} for domain in SHARES}
    extra["FLOPs, % of DnC"] = {name: [100 * costs[name] / costs[DNC]] * len(SEEDS) for name in ARMS}
    took = (time.perf_counter() - begin) / 60
    show(folder, "dnc", figures, before, scale, took, outcomes(linear, told), extra, by_seed="linear")
    print(f"the long base has {costs['epochs']} epochs; by seed:")
    for name, values in told.items():
        print(f"- {name}: {', '.join(map(str, values))}")
    (folder / "dnc_clusters.json").write_text(json.dumps({"flops": costs, "by seed": told}, indent=1))


def train(folder, scale, jobs, end, costs):
    """Whether all networks are there: base and long base, clusters, experts, students."""

    def cells(arms):
        left = (end - time.perf_counter()) / 60
        return run_cells(arms, folder, scale, jobs, left, own_images=True) is not None

    data = pool_settings(folder)
    full = [expert(scale, data, f"expert {k} of all", EXPERTS / K, seeds_after=of_expert(k)) for k in range(K)]
    long = moclr(LONG, "1_base.yaml", scale, data, costs["epochs"] / scale.epochs)
    base = moclr(BASIS, "1_base.yaml", scale, data, BASE)
    if not cells([long, base, *full]):
        return False
    if not divide(folder, scale, data, jobs, end):
        print("not all clusters are made; the same command goes on")
        return False
    parts = [part for kind in CLUSTERERS for part in experts(folder, scale, data, kind)]
    return cells(parts) and cells(students(folder, scale, data))


def moclr(name, config, scale, data, times, batch=BATCH, seeds_after=0, **own):
    """A base, or an expert."""
    model = WRITTEN_HEADS | rates(RATE, batch, times * scale.epochs)
    settings = {"model": {"init_args": model}, "data": {"init_args": data | {"batch_size": batch} | own}}
    return Arm(name, f"divide_contrast/{config}", settings, times, seeds_after)


def expert(scale, data, name, times, batch=EXPERT_BATCH, seeds_after=0, subset=None):
    return moclr(name, "3_expert.yaml", scale, data, times, batch, seeds_after, subset=subset)


def experts(folder, scale, data, kind):
    """One a part; a part that is smaller than a batch on any seed has a smaller one."""
    edges = [f"{edge(folder, kind, seed)}.safetensors" for seed in SEEDS]
    smallest = torch.stack([Clustering.load(path)[0].sizes for path in edges]).amin(0).tolist()
    if min(smallest) < 2:
        sys.exit(f"found a part of {min(smallest)} images; expected at least 2, of which an expert can be trained")
    named = f"{edge(folder, kind, 'SEED')}.safetensors"
    return [
        expert(
            *(scale, data, f"expert {k} of {kind}", EXPERTS, min(EXPERT_BATCH, size)),
            seeds_after=of_expert(k),
            subset={"path": named, "value": k},
        )
        for k, size in enumerate(smallest)
    ]


def of_expert(k):
    """What is added to the cell's seed; `of_expert(K)` is for students."""
    return OWN_SEED * (1 + k)


def students(folder, scale, data):
    """All learn from the same base."""

    def student(name, kind, taught_by, **own):
        teachers = [checkpoint(folder, Arm(f"expert {k} of {taught_by}", "", {}), "SEED") for k in range(K)]
        model = {
            "base": str(checkpoint(folder, Arm(BASIS, "", {}), "SEED")),
            "experts": [str(path) for path in teachers],
            "clusters": f"{edge(folder, kind, 'SEED')}.safetensors",
        }
        model |= WRITTEN_HEADS | {"schedule": schedule(STUDENT * scale.epochs)} | own
        settings = {"model": {"init_args": model}, "data": {"init_args": data | {"batch_size": STUDENT_BATCH}}}
        return Arm(name, "divide_contrast/4_distill.yaml", settings, STUDENT, of_expert(K))

    return [
        student(DNC, "clusters", "clusters"),
        student(RANDOM, "random", "random"),
        student(FULL, "clusters", "all"),
        student(ALONE, "clusters", "clusters", learn_from="base"),
    ]


def rates(rate, batch, epochs):
    """The rate of a batch of 256 at this one, and a warm-up of a tenth of the epochs."""
    optimizer = {"lr": rate * batch / 256, "weight_decay": 1e-4, "trust": 0.02, "clip": True}
    return {
        "optimizer": {"class_path": "ssl_lightning.optim.LARS", "init_args": optimizer},
        "schedule": schedule(epochs),
    }


def schedule(epochs):
    return {"class_path": "ssl_lightning.optim.WarmupCosine", "init_args": {"warmup_epochs": epochs / 10}}


def pool_settings(folder):
    """Of the data of every run: the pool, its mean and standard deviation, and no probes, who come afterwards."""
    path = str(folder / "pool.tar")
    images, _ = every(CuratedImages(path=path).training)
    mean, std = (
        [round(float(value) / 255, 4) for value in values]
        for values in (images.float().mean((0, 2, 3)), images.float().std((0, 2, 3)))
    )
    return {"path": path, "mean": mean, "std": std, "probe_sets": {}}


def edge(folder, kind, seed):
    """The stage edge, without its ending."""
    return folder / "runs" / f"{kind}-s{seed}"


def divide(folder, scale, data, jobs, end):
    """Whether all bases' hidden layers are clustered, and random parts drawn beside them."""

    def divided(cell):
        kind, seed = cell
        path = edge(folder, kind, seed)
        written = {"path": str(path), "num_clusters": K, "layer": "hidden", "clusterer": CLUSTERERS[kind]}
        callback = {"class_path": "ssl_lightning.callbacks.WriteClusters", "init_args": written}
        seen = {"data": {"init_args": data | {"image_size": scale.image_size}}, "trainer": {"callbacks": [callback]}}
        base = checkpoint(folder, Arm(BASIS, "", {}), seed)
        return write_clusters(path, base, seed, "divide_contrast/2_cluster.yaml", K, seen, scale, end)

    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(divided, [(kind, seed) for seed in SEEDS for kind in CLUSTERERS])))


def flops(scale):
    """What each arm multiplies and adds for an image of the pool, and the epochs of the long base.

    Counted are convolutions, linear layers and the loss's products, forward and backward, of one step a method; the
    k-means itself, normalization and the optimizer's work are left out.
    """
    step, student, glance = of_moclr(scale), of_student(scale), of_glance(scale)
    base, divided, taught = BASE * scale.epochs * step, EXPERTS * scale.epochs * step, STUDENT * scale.epochs * student
    whole = base + glance + divided + taught
    epochs, alone = math.ceil(whole / step), base + STUDENT * scale.epochs * of_student(scale, teachers=1)
    costs = {"base": base, LONG: epochs * step, ALONE: alone, "epochs": epochs}
    return costs | dict.fromkeys((DNC, RANDOM, FULL), whole)


def of_moclr(scale):
    """Of a training step for each image."""
    method: Any = MoCLR(ResNet18(scale.width), **HEADS)
    batch = Batch(torch.arange(BATCH), [images(scale)] * 2, torch.zeros(BATCH))
    return counted(lambda: method.training_step(batch, 0)["loss"].backward())


def of_student(scale, teachers=2):
    """The same of a student whose teachers see both views. All regressors answer, as they do in its step."""
    method: Any = Distill("", [""] * K, "", ResNet18(scale.width), **HEADS)
    batch = images(scale)
    regressors = [method.base_regressor, *method.expert_regressors]

    def learn():
        z = method.projector(method(batch))
        torch.stack([regressor(z) for regressor in regressors]).sum().backward()

    with torch.no_grad():
        seen = counted(lambda: method.projector(method(batch)))
    return 2 * (counted(learn) + teachers * seen)


def of_glance(scale):
    """The same of an image whose hidden layer is clustered."""
    method, batch = MoCLR(ResNet18(scale.width), **HEADS), images(scale)
    with torch.no_grad():
        return counted(lambda: method.embed(batch, "hidden"))


def images(scale):
    return torch.zeros(BATCH, 3, scale.image_size, scale.image_size)


def counted(work):
    """FLOPs for each image of a batch, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / BATCH


def evaluate_all(folder, scale, end):
    """Of every seed what all networks are worth, by name, and under "parts" what the sub-claims ask for.

    What has been evaluated is read from its file. None where the time is over before all is.
    """
    torch.set_num_threads(1)  # two of them on two cores that are busy evaluate ten times as slowly
    (folder / "evaluated").mkdir(exist_ok=True)
    found, probes = {}, {}
    device = torch.device("cpu" if scale.accelerator == "cpu" else "cuda")
    for seed in SEEDS:
        for name in ("untrained", *ARMS, "parts"):
            path = folder / "evaluated" / f"{name.replace(' ', '-')}-s{seed}.json"
            if not path.exists():
                if time.perf_counter() >= end:
                    return None
                probes = probes or open_probes(folder)
                if name == "parts":
                    answers = sub_claims(folder, probes, seed, device)
                else:
                    answers = evaluate(network(folder, scale, name, seed), probes, device)
                temporary = path.with_suffix(".tmp")
                temporary.write_text(json.dumps(answers))
                os.replace(temporary, path)
            found.setdefault(name, []).append(json.loads(path.read_text()))
    return found


def network(folder, scale, name, seed):
    """In eval mode; the untrained one is drawn by the seed."""
    if name != "untrained":
        return load_model(checkpoint(folder, Arm(name, "", {}), seed))
    data = pool_settings(folder)
    torch.manual_seed(seed)
    preprocessing = Preprocessing(scale.image_size, tuple(data["mean"]), tuple(data["std"]))
    return MoCLR(ResNet18(scale.width), **HEADS, preprocessing=preprocessing).eval()


def sub_claims(folder, probes, seed, device):
    """What `evaluate_clusters` finds, and the steps of experts and long base."""
    names = [*(f"expert {k} of clusters" for k in range(K)), LONG]
    files = {name: checkpoint(folder, Arm(name, "", {}), seed) for name in (BASIS, *names)}
    *experts, long = (load_model(files[name]) for name in names)
    clusters, _ = Clustering.load(f"{edge(folder, 'clusters', seed)}.safetensors")
    domains = CuratedImages(path=str(folder / "pool.tar")).training.labels
    found = evaluate_clusters(load_model(files[BASIS]), long, experts, clusters, domains, probes, seed, device)
    done = [json.loads((files[name].parents[1] / "done.json").read_text()) for name in names]
    return found | {STEPS: [run["steps"] for run in done]}


def outcomes(linear, told):
    """By the rule above."""
    first = compare(linear[DNC], linear[LONG])
    if compare(linear[DNC], linear[BASIS]) != "holds":
        first = UNDECIDED
    fewer = all(max(experts) < long for *experts, long in told[STEPS])
    second = not_behind(linear[LONG], linear[FULL])
    third = compare(linear[FULL], linear[RANDOM])
    order, beaten = {first, second, third}, compare(told[OWN], told[SAME])
    whole = "fails" if "fails" in order else "holds" if order == {"holds"} else UNDECIDED
    return {
        "experts beat the long base on their own parts, in fewer steps": beaten if fewer else "fails",
        "clusters of the base separate domains": "holds" if min(told[NMI]) > 0.8 else "fails",
        "hidden-layer clusters vote better than pooled ones": compare(told[HIDDEN], told[POOLED]),
        "DnC beats the long base": first,
        "the long base is not behind experts of all images": second,
        "experts of all images beat those of random parts": third,
        "the paper's order": whole,
        "DnC beats random parts": compare(linear[DNC], linear[RANDOM]),
        "DnC beats learning from the base alone": compare(linear[DNC], linear[ALONE]),
    }


def not_behind(ours, theirs):
    compared = compare(ours, theirs)
    level = compared == UNDECIDED and statistics.mean(ours) >= statistics.mean(theirs) - 1
    return "holds" if level else compared


if __name__ == "__main__":
    main()
