"""Codes: our `sinkhorn` against lightly's and the public algorithm written out, in time and in what stays finite.

    python benchmarks/sinkhorn.py [--rounds 15] [--json PATH]

All take turns on the same scores, one thread, float32, three iterations; milliseconds are medians, ratios are medians
over the rounds with least and largest. lightly's column needs `pip install lightly`, which is no dependency of ours:
without it the column is left out. Then 36 kinds of input (six sizes and shapes of scores, two epsilons, three
precisions): how many give finite codes, and the largest error against the same rounds on logarithms in float64.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import normalize

from ssl_lightning.functional import sinkhorn

SIZES = ((256, 3000), (1024, 3000), (4096, 3000), (1024, 16384))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", action="store_true", help="also torch.compile; the first round compiles")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = {"ours": sinkhorn, "as printed": as_printed} | lightlys() | (compiled() if options.compiled else {})
    print(f"{platform.machine()}, torch {torch.__version__}, one thread; {', '.join(ways)}")
    figures = {f"{b} x {k}": time_all(ways, cosines(b, k), options.rounds) for b, k in SIZES}
    for size, figure in figures.items():
        print(size, "; ".join(f"{name} {text(entry)}" for name, entry in figure.items()))
    robust = {name: finite_and_exact(way) for name, way in ways.items()}
    for name, (finite, error) in robust.items():
        print(f"{name}: {finite} of 36 finite, largest error of those {error:.1e}")
    if options.json:
        options.json.write_text(json.dumps({"times": figures, "finite of 36, largest error": robust}, indent=2))


def lightlys():
    try:
        from lightly.loss.swav_loss import sinkhorn as theirs
    except ImportError:
        print("lightly is not installed: its column is left out (pip install lightly)")
        return {}
    return {"lightly": lambda scores, epsilon=0.05: theirs(scores, epsilon=epsilon)}


def compiled():
    return {"ours, compiled": torch.compile(sinkhorn)}


def as_printed(scores, epsilon=0.05):
    """Algorithm 1 of the paper: exponentials, then whole matrices over and over."""
    with torch.no_grad():
        q = (scores / epsilon).exp().T
        q = q / q.sum()
        k, b = q.shape
        for _ in range(3):
            q = q / (q.sum(1, keepdim=True) * k)
            q = q / (q.sum(0, keepdim=True) * b)
        return (q * b).T


def cosines(b, k, width=128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z, c = (normalize(torch.randn(n, width, generator=generator), dim=1) for n in (b, k))
    return z @ c.T


def time_all(ways, scores, rounds):
    """Milliseconds of each, and ours as a share of each of the others, round by round."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds + 2):
        for name, way in ways.items():
            begin = time.perf_counter()
            way(scores)
            seconds[name].append(time.perf_counter() - begin)
    figure = {}
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds["ours"][2:], times[2:], strict=True)]
        figure[name] = {"ms": statistics.median(times[2:]) * 1e3, "ours / this": spread(ratios)}
    return figure


def spread(values):
    return [min(values), statistics.median(values), max(values)]


def text(entry):
    low, middle, high = entry["ours / this"]
    return f"{entry['ms']:.2f} ms (ours {middle:.2f}x, {low:.2f}-{high:.2f})"


def finite_and_exact(way):
    """Over the 36 kinds: how many codes are finite, and the largest error among those."""
    count, largest = 0, 0.0
    for scores in kinds():
        for epsilon in (0.05, 0.03):
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                given = scores.to(dtype)
                codes = way(given, epsilon=epsilon)
                if torch.isfinite(codes).all():
                    count += 1
                    largest = max(largest, float((codes.double() - reference(given, epsilon)).abs().max()))
    return count, largest


def kinds():
    """Cosines at random initialization, of one point, of embeddings that have nearly collapsed; 5, 10 and 50 times."""
    random = cosines(512, 3000)
    generator = torch.Generator().manual_seed(1)
    point = torch.randn(1, 128, generator=generator)
    prototypes = normalize(torch.randn(3000, 128, generator=generator), dim=1)
    near = normalize(point + 0.05 * torch.randn(512, 128, generator=generator), dim=1)
    one = normalize(point, dim=1).expand(512, -1)
    return [random, one @ prototypes.T, near @ prototypes.T, 5 * random, 10 * random, 50 * random]


def reference(scores, epsilon):
    exponents = scores.double() / epsilon
    u = exponents.new_zeros(len(scores), 1)
    for _ in range(3):
        v = -(exponents + u).logsumexp(0)
        u = -(exponents + v).logsumexp(1, keepdim=True)
    return (exponents + v + u).exp()


if __name__ == "__main__":
    main()
