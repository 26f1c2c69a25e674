"""Claims (SwAV, appendix C): what SwAV's parts do, the parts that two cores can ask.

    SSL_LIGHTNING_DATA=<folder of cifar10.tar.xz> python benchmarks/claims/swav_parts.py [--out FOLDER] [--help]

Arms, each the base with one change: T=3 rounds of Sinkhorn, epsilon 0.05, K=256 learned prototypes; T=1, T=10; epsilon
0.03, 0.2; prototypes fixed at random; K=64, K=1024. Two crops of 10,000 images, batch 128, 10 epochs, three seeds,
otherwise configs/swav.yaml. The queue at batch 64 and multi-crop at equal time wait for a GPU (benchmarks/gpu.md).

Rule, fixed before the first run. An arm wins over another if its k-NN-20 is higher on every seed, or by more than two
standard deviations of the paired differences; "is worse" holds if the other wins, fails if it wins itself, else is
undecided at this size. "Within two points" is about means: it holds or fails. Epsilon 0.2 also counts as worst where
its loss ends within 0.5 % of ln K on every seed.
"""

import math
import statistics

from cells import SEEDS, Arm, beats, evaluations, parse, report, rows, run_cells

EPOCHS = 10
BASE_K = 256


def arm(name, **changes):
    settings = {"num_prototypes": BASE_K, "epsilon": 0.05, "sinkhorn_iterations": 3, "hidden": [512]} | changes
    return Arm(name, "swav.yaml", {"model": {"init_args": settings}})


def arms(epochs):
    return [
        arm("base"),
        arm("T=1", sinkhorn_iterations=1),
        arm("T=10", sinkhorn_iterations=10),
        arm("epsilon 0.03", epsilon=0.03),
        arm("epsilon 0.2", epsilon=0.2),
        arm("fixed prototypes", freeze_epochs=float(epochs + 1)),
        arm("K=64", num_prototypes=64),
        arm("K=1024", num_prototypes=1024),
    ]


def main():
    folder, scale, jobs, minutes = parse(__doc__, "swav_parts", EPOCHS)
    every = arms(scale.epochs)
    minutes = run_cells(every, folder, scale, jobs, minutes)
    if minutes is None:
        return
    knn = {arm.name: evaluations(folder, arm, "knn/top1") for arm in every}
    ends = {arm.name: [last_loss(folder, arm, seed) for seed in SEEDS] for arm in every}
    report(folder, "swav_parts", every, scale, minutes, outcomes(knn, ends), {"last loss, % of ln K": ends})


def outcomes(knn, ends):
    """By the rule above."""
    collapsed = min(ends["epsilon 0.2"]) > 99.5
    return {
        "epsilon 0.2 collapses or is worse than 0.05": "holds" if collapsed else worse(knn, "epsilon 0.2", "base"),
        "one round of Sinkhorn is worse than three": worse(knn, "T=1", "base"),
        "ten rounds are within two points of three": within(knn, "T=10", "base"),
        "epsilon 0.03 is within two points of 0.05": within(knn, "epsilon 0.03", "base"),
        "prototypes fixed at random are within two points of learned ones": within(knn, "fixed prototypes", "base"),
        "64, 256 and 1024 prototypes are within two points": within(knn, "K=64", "base", "K=1024"),
    }


def worse(knn, name, other):
    won = beats(knn[other], knn[name]), beats(knn[name], knn[other])
    return {(True, False): "holds", (False, True): "fails"}.get(won, "undecided at this size")


def within(knn, *names):
    means = [statistics.mean(knn[name]) for name in names]
    return "holds" if max(means) - min(means) <= 2 else "fails"


def last_loss(folder, arm, seed):
    """Percent of ln K at the last row of training."""
    losses = [float(row["train/loss"]) for row in rows(folder, arm, seed) if row.get("train/loss")]
    k = arm.settings["model"]["init_args"]["num_prototypes"]
    return 100 * losses[-1] / math.log(k)


if __name__ == "__main__":
    main()
