"""Speed of `KMeans` against faiss on all points: same rows, same start, 20 iterations, one thread.

    python benchmarks/kmeans.py [--rounds 7] [--cells 50000x128x1000 ...] [--json PATH]

CPU time of the process, the candidates interleaved round by round; a ratio is taken within a round, so what else the
machine does falls on both. `KMeans` returns labels and distances to the returned centroids, which faiss leaves to a
search after its training: the first ratio counts that search, the second does not. Rows: a mixture of overlapping
Gaussians with variances that fall off like those of a network's features, and, where SSL_LIGHTNING_DATA holds the
CIFAR-10 pack, the whitened principal components of its pixels.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import faiss
import torch

from ssl_lightning.clustering import KMeans, PCAWhitening
from ssl_lightning.clustering.rows import ShardedRows
from ssl_lightning.clustering.starts import random_rows
from ssl_lightning.data import CuratedImages

CELLS = [
    (50_000, 128, 1000),
    (50_000, 128, 100),
    (50_000, 128, 10),
    (50_000, 512, 100),
    (50_000, 512, 10),
    (10_000, 2048, 100),
    (10_000, 128, 1000),
    (10_000, 128, 10),
]
ITERATIONS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cells", nargs="*", type=cell, default=CELLS, help="rows x width x clusters")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, faiss {faiss.__version__}, 1 thread"
    )
    figures = {
        "x".join(map(str, sizes)): compare(mixture(*sizes[:2]), sizes[2], options.rounds) for sizes in options.cells
    }
    pixels = cifar_components(128)
    if pixels is not None:
        figures["CIFAR-10 pixels, 128 components, K=1000"] = compare(pixels, 1000, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def cell(text):
    rows, width, clusters = map(int, text.split("x"))
    return rows, width, clusters


def mixture(rows, width, components=300):
    """Overlapping clusters of unequal size in a few strong and many weak directions."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.arange(1, width + 1) ** -0.5
    shares = torch.arange(1, components + 1) ** -0.7
    which = torch.multinomial(shares, rows, replacement=True, generator=generator)
    means = torch.randn(components, width, generator=generator) * spread
    return means[which] + torch.randn(rows, width, generator=generator) * spread * 0.8


def cifar_components(width):
    """Principal components of 50,000 real images; None where the pack is not at hand."""
    try:
        images = CuratedImages(path="cifar10.tar.xz", image_size=32).training
    except ValueError as error:
        print(f"skipped CIFAR-10: {error}")
        return None
    images = images.read(torch.arange(len(images)))[0]
    return PCAWhitening(width)(images.flatten(1).float())


def compare(features, k, rounds):
    """Seconds, ratios and objectives of both in one cell."""
    first = features[random_rows(ShardedRows(features, None), k, 0)]
    seconds = {"ours": [], "faiss": [], "faiss, training only": []}
    for _ in range(rounds + 1):
        begin = time.process_time()
        ours = KMeans(iterations=ITERATIONS)(features, k)
        seconds["ours"].append(time.process_time() - begin)
        trained, with_labels, objective = by_faiss(features, k, first)
        seconds["faiss"].append(with_labels)
        seconds["faiss, training only"].append(trained)
    timed = {name: values[1:] for name, values in seconds.items()}  # the first round warms up
    figure = {name: statistics.median(values) for name, values in timed.items()}
    figure |= {f"ratio to {name}": spread(timed[name], timed["ours"]) for name in ("faiss", "faiss, training only")}
    figure |= {"objective": ours.objective[-1] / len(features), "objective of faiss": objective / len(features)}
    show(f"{tuple(features.shape)} K={k}", figure)
    return figure


def by_faiss(features, k, first):
    kmeans = faiss.Kmeans(
        features.shape[1], k, niter=ITERATIONS, min_points_per_centroid=1, max_points_per_centroid=len(features)
    )
    rows = features.numpy()
    begin = time.process_time()
    kmeans.train(rows, init_centroids=first.numpy())
    trained = time.process_time() - begin
    distances, _ = kmeans.index.search(rows, 1)
    return trained, time.process_time() - begin, float(distances.astype("float64").sum())


def spread(theirs, ours):
    """Least, median and largest ratio of a round: above 1, ours is faster."""
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return [ratios[0], statistics.median(ratios), ratios[-1]]


def show(name, figure):
    ratios = "   ".join(
        "{1:.2f}x ({0:.2f}-{2:.2f}) {name}".format(*figure[f"ratio to {other}"], name=other)
        for other in ("faiss", "faiss, training only")
    )
    difference = figure["objective"] / figure["objective of faiss"] - 1
    print(f"{name:24} {figure['ours']:7.3f} s   {ratios}   objective {difference:+.1e}", flush=True)


if __name__ == "__main__":
    main()
