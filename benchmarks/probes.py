"""Speed and accuracy of the probes against scikit-learn, faiss and SGD on the same frozen features, one thread.

    SSL_LIGHTNING_DATA=... python benchmarks/probes.py [--rounds 5] [--features PATH] [--json PATH]

Features: a ResNet-18 with random weights on the images of CIFAR-10, 50,000 x 512 and 10,000 x 512, standardized
for all linear classifiers alike. Random weights compare probes, not methods. CPU time of the process, the candidates
interleaved round by round; a ratio is taken within a round. `--features` keeps the features between calls.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import faiss
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from torch import nn
from torch.nn import functional as F

from ssl_lightning.data import CuratedImages
from ssl_lightning.evaluation import KNN, FewShot, LabelledFeatures, LinearProbe
from ssl_lightning.methods import DeepCluster
from ssl_lightning.models import ResNet18

EPISODES = 600


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--features", type=Path, help="read the features here, or write them if there are none")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, faiss {faiss.__version__}, 1 thread")
    train, test = features(options.features)
    figures = {
        "linear": compare(linear_probes(train, test), 1),
        "k-NN, k=200": compare(neighbor_probes(train, test), options.rounds),
        "5-way 5-shot, centroid": compare(episode_probes(train, test, "centroid"), options.rounds),
        "5-way 5-shot, logistic": compare(episode_probes(train, test, "logistic"), options.rounds),
    }
    if options.json:
        options.json.write_text(json.dumps({name: figures[name] for name in figures}, indent=2))


def features(path):
    """Training and test features of CIFAR-10, standardized."""
    if path is not None and path.exists():
        kept = torch.load(path)
    else:
        kept = extract()
        if path is not None:
            torch.save(kept, path)
    mean, std = kept["train"].mean(0), kept["train"].std(0).clamp(min=1e-6)
    return tuple(
        LabelledFeatures((kept[split] - mean) / std, kept[f"{split} labels"], 10) for split in ("train", "test")
    )


def extract():
    """Both splits of the pack through a network with random weights; a few minutes."""
    torch.manual_seed(0)
    data = CuratedImages(path="cifar10.tar.xz", image_size=32)
    network = DeepCluster(10, ResNet18(stem="cifar")).eval()
    kept = {}
    for split, images in zip(("train", "test"), data.probes["cifar10"], strict=True):
        rows = []
        for block in torch.arange(len(images)).split(500):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                rows.append(network.embed(network.normalize(images.read(block)[0])).float())
        kept |= {split: torch.cat(rows), f"{split} labels": images.labels}
    return kept


def linear_probes(train, test):
    """Both kinds of the probe, 100 epochs of SGD on the same features, and scikit-learn's logistic regression."""

    def by_sgd():
        torch.manual_seed(0)
        layer = nn.Linear(train.features.shape[1], 10)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        for _ in range(100):
            for rows in torch.randperm(len(train.labels)).split(256):
                optimizer.zero_grad()
                F.cross_entropy(layer(train.features[rows]), train.labels[rows]).backward()
                optimizer.step()
            schedule.step()
        return share(layer(test.features).argmax(1) == test.labels)

    def by_scikit_learn():
        fitted = LogisticRegression(max_iter=100).fit(train.features.numpy(), train.labels.numpy())
        return float(fitted.score(test.features.numpy(), test.labels.numpy()))

    return {
        "LinearProbe": lambda: LinearProbe()(train, test)["linear/top1"],
        "the same, ridge": lambda: LinearProbe(classifier="ridge")(train, test)["ridge/top1"],
        "100 epochs of SGD": by_sgd,
        "scikit-learn logistic": by_scikit_learn,
    }


def neighbor_probes(train, test):
    """The probe and the same vote after an exact search by faiss."""

    def by_faiss():
        reference, queries = F.normalize(train.features, dim=1), F.normalize(test.features, dim=1)
        index = faiss.IndexFlatIP(reference.shape[1])
        index.add(reference.numpy())
        similarity, nearest = index.search(queries.numpy(), 200)
        weights = torch.from_numpy(similarity / 0.1).exp()
        votes = torch.zeros(len(queries), 10).scatter_add_(1, train.labels[torch.from_numpy(nearest)], weights)
        return share(votes.argmax(1) == test.labels)

    return {"KNN": lambda: KNN(k=200)(train, test)["knn200/top1"], "faiss IndexFlatIP": by_faiss}


def episode_probes(train, test, classifier):
    """The probe and a loop of scikit-learn over the same episodes."""
    probe = FewShot(shots=(5,), episodes=EPISODES, classifier=classifier)
    unit = F.normalize(test.features, dim=1).numpy()
    labels = np.repeat(np.arange(5), 5), np.repeat(np.arange(5), 15)

    def loop():
        right = []
        for rows in probe.sample_episodes(test.labels, 5, 15).numpy():
            fitted = NearestCentroid() if classifier == "centroid" else LogisticRegression(max_iter=1000)
            fitted.fit(unit[rows[:, :5].ravel()], labels[0])
            right.append(fitted.score(unit[rows[:, 5:].ravel()], labels[1]))
        return float(np.mean(right))

    return {"FewShot": lambda: probe(train, test)["fewshot/5way5shot"], "scikit-learn loop": loop}


def share(right):
    return float(right.double().mean())


def compare(candidates, rounds):
    """Seconds, accuracy, and the ratio of every other candidate's time to the first one's, round by round."""
    seconds = {name: [] for name in candidates}
    accuracy = {}
    for _ in range(rounds):
        for name, evaluate in candidates.items():
            begin = time.process_time()
            accuracy[name] = evaluate()
            seconds[name].append(time.process_time() - begin)
    first = next(iter(candidates))
    figure = {}
    for name in candidates:
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds[first], strict=True))
        figure[name] = {"s": statistics.median(seconds[name]), "accuracy": accuracy[name]}
        figure[name]["ratio"] = [ratios[0], statistics.median(ratios), ratios[-1]]
        show(name, figure[name])
    return figure


def show(name, figure):
    low, middle, high = figure["ratio"]
    print(f"{name:24}{figure['s']:9.3f} s   accuracy {100 * figure['accuracy']:.2f}", end="")
    print(f"   {middle:.2f}x ({low:.2f}-{high:.2f}) the time of ours", flush=True)


if __name__ == "__main__":
    main()
