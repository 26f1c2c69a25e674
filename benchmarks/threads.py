"""Training speed on idle cores and beside other busy processes: how threads of torch wait for each other.

    python benchmarks/threads.py [--rounds 2] [--json PATH]

Each candidate is a process of its own, since threads read their settings once. The candidates take turns, on idle cores
and beside as many busy processes as there are cores; a ratio is taken within a round. Training: ResNet-18 of width 32
in float32, with a small batch (16 images of 16 pixels) and a large one (256 of 32).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CANDIDATES = {
    "as libraries are set": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"},
    "short spin (commands)": {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
VARIABLES = {name for settings in CANDIDATES.values() for name in settings}
BATCHES = ((16, 16), (256, 32))
SECONDS = 4
BUSY = "while True: pass"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--measure", action="store_true", help="print the speed of this process (used by this program)")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(images_per_second()))
        return
    figures = {}
    for busy in (0, os.cpu_count() or 1):
        rounds = [{name: speed(settings, busy) for name, settings in CANDIDATES.items()} for _ in range(options.rounds)]
        for name in CANDIDATES:
            for batch in rounds[0][name]:
                ratios = [each[name][batch] / each["as libraries are set"][batch] for each in rounds]
                rate = statistics.median(each[name][batch] for each in rounds)
                figures[f"{busy} busy processes, {name}, {batch}"] = {"images_per_second": rate, "ratio": ratios}
                least, middle, most = min(ratios), statistics.median(ratios), max(ratios)
                print(
                    f"{busy} busy, {name:<22} {batch:>9} {rate:6.0f} images/s  {middle:.2f} ({least:.2f}-{most:.2f})",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def speed(settings, busy):
    """Images per second of a process with these variables, beside so many busy ones."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | settings
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--measure"], env=environment, capture_output=True, text=True, check=True
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    return json.loads(done.stdout)


def images_per_second():
    """Images per second of training with each batch; two steps before are not counted."""
    import torch

    from ssl_lightning.models import ResNet18

    net = ResNet18(width=32).build().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    rates = {}
    for batch, side in BATCHES:
        images = torch.rand(batch, 3, side, side)
        steps, start = -2, time.perf_counter()
        while steps < 1 or time.perf_counter() - start < SECONDS:
            optimizer.zero_grad()
            net(images).square().mean().backward()
            optimizer.step()
            steps += 1
            if steps == 0:
                start = time.perf_counter()
        rates[f"{batch} of {side}"] = steps * batch / (time.perf_counter() - start)
    return rates


if __name__ == "__main__":
    main()
