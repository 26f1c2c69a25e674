"""Claim (SwAV, appendix D): DeepCluster-v2 beats DeepCluster at equal epochs.

    SSL_LIGHTNING_DATA=<folder of cifar10.tar.xz> python benchmarks/claims/v2_against_v1.py [--out FOLDER] [--help]

Arms: v1, with a head that is initialized anew at each clustering; v1 with a head that is kept, new clusters numbered
after the old ones by the assignment that keeps most images (Hungarian); v2, with the centroids as the head. K=100, the
same two crops of 10,000 images, batch 128, 30 epochs, three seeds; each with its own recipe's optimizer.

Rule, fixed before the first run. An arm wins over another if its k-NN-20 is higher on every seed, or by more than two
standard deviations of the paired differences. "v2 beats v1" holds if v2 wins, fails if v1 wins, else is undecided at
this size. "The kept head lies in between" holds if its mean does. "v1's loss jumps and v2's does not" holds if, over
all clusterings after the first, the mean loss of the three steps after one stands above that of the three steps before
by more than a tenth of ln K for v1 on every seed, and by less for v2 on every seed.
"""

import math
import statistics

from cells import ROWS, SEEDS, Arm, beats, evaluations, parse, report, rows, run_cells

K, EPOCHS = 100, 30
VIEWS = [{"count": 2, "scale": [0.2, 1.0], "color_jitter": [0.4, 0.4, 0.4, 0.1], "grayscale": 0.2}]
RECLUSTER = {
    "class_path": "ssl_lightning.callbacks.Recluster",
    "init_args": {
        "clusterer": {"class_path": "ssl_lightning.clustering.KMeans"},
        "transform": {"class_path": "ssl_lightning.clustering.PCAWhitening", "init_args": {"dim": 64}},
    },
}
PROBES = {
    "class_path": "ssl_lightning.callbacks.ProbeFeatures",
    "init_args": {
        "probes": [
            {"class_path": "ssl_lightning.evaluation.LinearProbe"},
            {"class_path": "ssl_lightning.evaluation.KNN"},
        ]
    },
}


def v1(name, method):
    return Arm(
        name,
        "deepcluster.yaml",
        {
            "model": {"class_path": f"arms.{method}", "init_args": {"num_clusters": K}},
            "data": {"init_args": {"views": VIEWS}},
            "trainer": {"callbacks": [RECLUSTER, PROBES]},
        },
    )


ARMS = [
    v1("v1", "TwoViewDeepCluster"),
    v1("v1 head kept", "MatchedDeepCluster"),
    Arm(
        "v2",
        "deepcluster_v2.yaml",
        {
            "model": {
                "init_args": {
                    "num_clusters": K,
                    "hidden": [512],
                    "optimizer": {"init_args": {"lr": 0.3}},  # of 0.6 at batch 256
                    "schedule": {"init_args": {"warmup_epochs": 1}},
                }
            },
            "data": {"init_args": {"views": VIEWS}},
        },
    ),
]


def main():
    folder, scale, jobs, minutes = parse(__doc__, "v2_against_v1", EPOCHS)
    minutes = run_cells(ARMS, folder, scale, jobs, minutes)
    if minutes is None:
        return
    knn = {arm.name: evaluations(folder, arm, "knn/top1") for arm in ARMS}
    jumps = {arm.name: [jump(rows(folder, arm, seed), scale) for seed in SEEDS] for arm in ARMS}
    report(folder, "v2_against_v1", ARMS, scale, minutes, outcomes(knn, jumps), {"jump, % of ln K": jumps})


def outcomes(knn, jumps):
    """By the rule above."""
    won = beats(knn["v2"], knn["v1"]), beats(knn["v1"], knn["v2"])
    means = [statistics.mean(knn[name]) for name in ("v1", "v1 head kept", "v2")]
    jumped = min(jumps["v1"]) > 10, max(jumps["v2"]) < 10
    return {
        "v2 beats v1 on k-NN": {(True, False): "holds", (False, True): "fails"}.get(won, "undecided at this size"),
        "the kept head lies in between": "holds" if means == sorted(means) else "fails",
        "v1's loss jumps at each clustering and v2's does not": "holds" if all(jumped) else "fails",
    }


def jump(table, scale):
    """How far the loss stands above itself after a clustering, in percent of ln K, over all but the first.

    A row is the mean of three steps; one that spans a clustering is left out.
    """
    loss = {int(row["step"]): float(row["train/loss"]) for row in table if row.get("train/loss")}
    ends = [epoch * scale.steps for epoch in range(1, scale.epochs)]
    around = [(end // ROWS * ROWS, -(-end // ROWS) * ROWS + ROWS) for end in ends]
    return 100 * statistics.mean(loss[after] - loss[before] for before, after in around) / math.log(K)


if __name__ == "__main__":
    main()
