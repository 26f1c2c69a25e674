"""Training speed beside other busy processes: how threads of torch wait for each other.

    python benchmarks/threads.py [--rounds 3] [--json PATH]

Each candidate is a process of its own, since threads read their settings once. The candidates take turns, on idle cores
and beside as many busy processes as there are cores; a ratio is taken within a round. Training: `check-setup`'s, in
float32.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

CANDIDATES = {
    "as libraries are set": {"OMP_WAIT_POLICY": None, "KMP_BLOCKTIME": None},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SPEED = (
    "import torch; from ssl_lightning.commands.check_setup import images_per_second as f; print(f(torch.device('cpu')))"
)
BUSY = "while True: pass"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures = {}
    for busy in (0, os.cpu_count() or 1):
        rounds = [{name: speed(settings, busy) for name, settings in CANDIDATES.items()} for _ in range(options.rounds)]
        for name in CANDIDATES:
            ratios = [each[name] / each["as libraries are set"] for each in rounds]
            rate = statistics.median(each[name] for each in rounds)
            figures[f"{busy} busy processes, {name}"] = {"images_per_second": rate, "ratio": ratios}
            least, middle, most = min(ratios), statistics.median(ratios), max(ratios)
            print(f"{busy} busy, {name:<22} {rate:6.0f} images/s  {middle:.2f} ({least:.2f}-{most:.2f})", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def speed(settings, busy):
    """Images per second of a process with these variables, beside so many busy ones."""
    environment = {
        name: value for name, value in os.environ.items() if name not in settings and name != "OMP_NUM_THREADS"
    }
    environment |= {name: value for name, value in settings.items() if value is not None}
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", SPEED], env=environment, capture_output=True, text=True, check=True
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout)


if __name__ == "__main__":
    main()
