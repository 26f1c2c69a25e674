"""The step of Local Aggregation against the network's own step: what background, clusters and memory cost.

    python benchmarks/local_aggregation.py [--rounds 5] [--device cpu] [--width 64] [--json PATH]

N=50,000 rows of D=128, k=4096 background neighbors, three clusterings of 1000, batch 128 at 32 px, ResNet-18. Both
steps take turns within a round: forward, backward and SGD with the sum of the embeddings as loss, and the same with
`local_aggregation_loss` and the write to the memory bank. Target: at most 1.15 (median over the rounds).
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from ssl_lightning.functional import local_aggregation_loss
from ssl_lightning.models import ResNet18
from ssl_lightning.sample_state import FeatureBank

N, D, K, HEADS, NEIGHBORS, BATCH, SIDE = 50_000, 128, 1000, 3, 4096, 128, 32
ROWS_OF_IMAGENET = 1_281_167


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=64, help="of the ResNet-18; 64 is the usual network")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    bare, ours, extra = steps(torch.device(options.device), options.width)
    bare(), ours(), extra()  # warm
    rounds = [(seconds(bare), seconds(ours), seconds(extra)) for _ in range(options.rounds)]
    ratios = [step / alone for alone, step, _ in rounds]
    found = {
        "device": torch.cuda.get_device_name()
        if options.device.startswith("cuda")
        else f"{torch.get_num_threads()} threads",
        "width": options.width,
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "network's step, ms": 1e3 * statistics.median(alone for alone, *_ in rounds),
        "loss and memory alone, ms": 1e3 * statistics.median(alone for *_, alone in rounds),
        "at 1.28 M rows, MB": megabytes(ROWS_OF_IMAGENET),
    }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def steps(device, width):
    """The network's own step, ours, and what ours adds: the loss with its gradient, and the write."""
    network = ResNet18(width).build().to(device)
    projector = torch.nn.Linear(network.num_features, D).to(device)
    optimizer = torch.optim.SGD([*network.parameters(), *projector.parameters()], lr=0.03, momentum=0.9)
    bank = FeatureBank(0.5).to(device)
    bank.fill(torch.randn(N, D))
    labels = torch.randint(K, (N, HEADS), dtype=torch.int32, device=device)
    images, index = torch.randn(BATCH, 3, SIDE, SIDE, device=device), torch.randint(N, (BATCH,), device=device)
    fixed = F.normalize(torch.randn(BATCH, D, device=device), dim=1).requires_grad_()

    def loss_of(z):
        return local_aggregation_loss(z, index, bank.rows, labels, NEIGHBORS, 0.07)

    def step(loss_from, write):
        z = F.normalize(projector(network(images)), dim=1)
        optimizer.zero_grad()
        loss_from(z).backward()
        optimizer.step()
        if write:
            bank.write(index, z.detach())
        _wait(device)

    def extra():
        loss_of(fixed).backward()
        bank.write(index, fixed.detach())
        _wait(device)

    return lambda: step(torch.sum, write=False), lambda: step(loss_of, write=True), extra


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def megabytes(rows):
    """Of memory, labels, and the products of a batch with their gradient, in float32 and int32."""
    return {
        "memory": rows * D * 4 / 1e6,
        "labels of three clusterings": rows * HEADS * 4 / 1e6,
        "products of a batch and their gradient": 2 * BATCH * rows * 4 / 1e6,
    }


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
