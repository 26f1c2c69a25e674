"""Claim (Zhuang et al. 2019): Local Aggregation beats instance recognition on k-NN.

    SSL_LIGHTNING_DATA=<folder of cifar10.tar.xz> python benchmarks/claims/la_against_ir.py [--out FOLDER] [--help]

One warm-up of ten epochs of instance recognition, the same to the bit in all arms of a seed, then ten more epochs: of
the same (IR), or of Local Aggregation (LA) with the same memory, rate and views, three clusterings of N/30 and 1024
background neighbors; and LA with one change each: one clustering, 256 neighbors, N/500 clusters. 10,000 images,
batch 128, three seeds, otherwise configs/local_aggregation.yaml with a constant rate.

Rule, fixed before the first run. An arm wins over another if its k-NN-20 is higher on every seed, or by more than two
standard deviations of the paired differences. "LA beats IR on k-NN" holds if LA wins, fails if IR wins, else is
undecided at this size. "The gap on k-NN is larger than that of the linear probe" holds if LA's mean lead over IR is
larger on k-NN, else fails. "Close neighbors are purer than background ones, and these than chance" holds if both do
at the last epoch of LA on every seed, else fails. "Too few clusters take purity and k-NN away" holds if LA with N/500
has a lower close purity on every seed and loses to LA, fails if it wins, else is undecided.
"""

import statistics

from cells import SEEDS, Arm, compare, evaluations, parse, report, rows, run_cells

EPOCHS, WARMUP = 20, 10
PURITIES = {
    "close": "cluster/close_purity",
    "background": "cluster/background_purity",
    "chance": "cluster/chance_purity",
}


def arms(images):
    """IR, LA, and LA with one change each."""

    def arm(name, **changes):
        settings = {
            "warmup_epochs": WARMUP,
            "num_clusters": images // 30,
            "num_neighbors": 1024,
            "num_heads": 3,
            "schedule": None,
        }
        return Arm(name, "local_aggregation.yaml", {"model": {"init_args": settings | changes}})

    return [
        arm("IR", warmup_epochs=10 * EPOCHS),
        arm("LA"),
        arm("LA H=1", num_heads=1),
        arm("LA k=256", num_neighbors=256),
        arm("LA m=N/500", num_clusters=images // 500),
    ]


def main():
    folder, scale, jobs, minutes = parse(__doc__, "la_against_ir", EPOCHS)
    tried = arms(scale.images)
    minutes = run_cells(tried, folder, scale, jobs, minutes)
    if minutes is None:
        return
    knn = {arm.name: evaluations(folder, arm, "knn/top1") for arm in tried}
    linear = {arm.name: evaluations(folder, arm, "linear/top1") for arm in tried}
    purity = {arm.name: {name: last(folder, arm, column) for name, column in PURITIES.items()} for arm in tried[1:]}
    close = {arm.name: purity[arm.name]["close"] if arm.name in purity else [0.0] * len(SEEDS) for arm in tried}
    found = outcomes(knn, linear, purity)
    report(folder, "la_against_ir", tried, scale, minutes, found, {"purity of close neighbors, %": close})
    print("purity at the last epoch, %, by seed:", purity)


def outcomes(knn, linear, purity):
    """By the rule above."""
    leads = [statistics.mean(evaluate["LA"]) - statistics.mean(evaluate["IR"]) for evaluate in (knn, linear)]
    la, few = purity["LA"], purity["LA m=N/500"]
    purer = all(
        close > background > chance
        for close, background, chance in zip(la["close"], la["background"], la["chance"], strict=True)
    )
    lower = all(a < b for a, b in zip(few["close"], la["close"], strict=True))
    return {
        "LA beats IR on k-NN": compare(knn["LA"], knn["IR"]),
        "the gap on k-NN is larger than that of the linear probe": "holds" if leads[0] > leads[1] else "fails",
        "close neighbors are purer than background ones, and these than chance": "holds" if purer else "fails",
        "too few clusters take purity and k-NN away": _few(knn, lower),
    }


def _few(knn, lower):
    compared = compare(knn["LA"], knn["LA m=N/500"])
    return "undecided at this size" if compared == "holds" and not lower else compared


def last(folder, arm, column):
    """Percent at the last row that has it, one number a seed."""
    return [100 * [float(row[column]) for row in rows(folder, arm, seed) if row.get(column)][-1] for seed in SEEDS]


if __name__ == "__main__":
    main()
