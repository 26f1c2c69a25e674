"""One segment of a long run on one GPU: trains for some minutes, stops at a step with a checkpoint, and writes JSON.

    python benchmarks/gpu.py swav --out "$OUT" [--minutes 8.5] [further options of ssl-lightning fit]

The same command again resumes where the last segment stopped; `finished` in the JSON is true once nothing is left. The
recipes are the full ResNet-18 (SEER: RegNetY-400MF) in bfloat16 on CIFAR-10, from configs/, with batches for a GPU.
<out>/<method>.json (with --seed 1: <method>-s1.json): device, images/s, and linear, k-NN and few-shot accuracy, each
with the seconds before it: wall time of all segments, with their starts, clustering and evaluating. Accuracies during
training have a reference set of 10,000 training rows, the first and the last ones all rows.
"""

import argparse
import csv
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import lightning
import torch

ROOT = Path(__file__).parents[1]
DEVICE = [
    *("--trainer.accelerator", "auto", "--trainer.devices", "1", "--trainer.precision", "bf16-mixed"),
    *("--trainer.enable_progress_bar", "false", "--trainer.benchmark", "true"),
    # one takes a quarter of a second, an epoch three; a signal writes one too
    *("--run.save_every_n_epochs", "10"),
]
# 16,900 images a second instead of 13,700 for SwAV on an H100, against some fifteen seconds at the start
COMPILED = ["--trainer.callbacks+=Compile"]
WHITENED = """[{class_path: Recluster, init_args: {clusterer: KMeans, transform: {class_path: PCAWhitening,
  init_args: {dim: 64}}}}, {class_path: ProbeFeatures, init_args: {probes: [LinearProbe, KNN, FewShot]}}]"""
LARGE = ["--data.batch_size", "512", "--trainer.check_val_every_n_epoch", "10"]
RECIPES = {
    # faiss gives way to our k-means, which runs on the device
    "deepcluster": ["--trainer.max_epochs", "100", "--trainer.callbacks", WHITENED],
    # 0.3 at batch 128, in proportion
    "swav": [
        "--trainer.max_epochs",
        "200",
        "--model.optimizer.lr",
        "1.2",
        "--model.schedule.warmup_epochs",
        "10",
        *LARGE,
        *COMPILED,
    ],
    "deepcluster_v2": ["--trainer.max_epochs", "200", "--model.optimizer.lr", "1.2", *LARGE, *COMPILED],
    # 0.03 at batch 128, in proportion
    "instance_recognition": ["--trainer.max_epochs", "200", "--model.optimizer.lr", "0.12", *LARGE],
    "local_aggregation": ["--trainer.max_epochs", "200", "--model.optimizer.lr", "0.12", *LARGE],
    "rotation_prediction": ["--trainer.max_epochs", "100", "--trainer.check_val_every_n_epoch", "10"],
    # 0.4 and 1.0 at batch 256, in proportion
    "simclr": ["--trainer.max_epochs", "200", "--model.optimizer.lr", "0.8", *LARGE],
    "byol": ["--trainer.max_epochs", "200", "--model.optimizer.lr", "2.0", *LARGE],
    "moclr": ["--trainer.max_epochs", "200", "--model.optimizer.lr", "0.8", *LARGE],
    "expert": ["--trainer.max_epochs", "300", "--trainer.check_val_every_n_epoch", "50"],
    "distill": ["--trainer.max_epochs", "100", *LARGE],
    "clusterfit": ["--trainer.max_epochs", "100", "--trainer.check_val_every_n_epoch", "10"],
    "seer": ["--trainer.max_epochs", "100", "--data.batch_size", "512", "--trainer.val_check_interval", "970"],
}
CONFIGS = {
    "clusterfit": "clusterfit/3_fit",
    "expert": "divide_contrast/3_expert",
    "distill": "divide_contrast/4_distill",
}
"""Of methods that have a config of another name; the stages before it are separate commands (gpu.md)."""
EVALUATED = {"linear": "eval/linear/top1", "k-NN 20": "eval/knn/top1", "k-NN 200": "eval/knn200/top1"}
EVALUATED |= {f"{shots}-shot": f"eval/fewshot/5way{shots}shot" for shots in (1, 5)}
EVALUATED |= {"linear, averaged": "eval_ema/linear/top1", "k-NN 20, averaged": "eval_ema/knn/top1"}
SPEED = "train/images_per_second"
REFERENCE = "10,000 rows"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=list(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="where the run and the JSON lie")
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--seed", type=int, default=0)
    options, further = parser.parse_known_args()
    name = f"{options.method}-s{options.seed}"
    config = CONFIGS.get(options.method, options.method)
    command = [sys.executable, "-m", "ssl_lightning", "fit", "--config", f"configs/{config}.yaml"]
    command += ["--config", "configs/data/cifar10.yaml", *DEVICE, *RECIPES[options.method]]
    command += ["--seed_everything", str(options.seed), "--run.dir", str(options.out.resolve()), "--run.name", name]
    clock = Clock(options.out.resolve() / name)
    code = run_for(options.minutes, [*command, *further], clock)
    if code not in (0, 143):  # 143: stopped by SIGTERM, with a checkpoint
        sys.exit(code)
    if not clock.table.exists():
        sys.exit(f"found no number after {options.minutes:g} minutes; the same command resumes: give it more --minutes")
    figures = read(options.out / name, clock)
    (options.out / f"{name if options.seed else options.method}.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures | {"evaluated": figures["evaluated"][-1:]}, indent=1))


class Clock:
    """Wall time of a run at each of its evaluated rows, over all its segments; kept in the run's folder."""

    def __init__(self, run):
        self.table, self.file = run / "metrics.csv", run / "clock.json"
        known = json.loads(self.file.read_text()) if self.file.exists() else {"seconds": 0.0, "rows": {}}
        self.earlier, self.rows, self.start = known["seconds"], known["rows"], time.time()

    def look(self):
        """Note what was evaluated since the last look, and the time."""
        if not self.table.exists():
            return
        seconds = self.earlier + time.time() - self.start
        for row in evaluated_rows(self.table):
            step, numbers = row["step"], [row.get(column) for column in EVALUATED.values()]
            if self.rows.get(step, {}).get("numbers") != numbers:  # the last row is evaluated twice
                self.rows[step] = {"seconds": seconds, "numbers": numbers}
        self.file.write_text(json.dumps({"seconds": seconds, "rows": self.rows}))


def run_for(minutes, command, clock):
    """Exit code of a process that is stopped when its time is over; the clock records rows meanwhile."""
    process = subprocess.Popen(command, cwd=ROOT)
    left = 60 * minutes
    while True:
        try:
            code = process.wait(min(1.0, left))
            clock.look()
            return code
        except subprocess.TimeoutExpired:
            clock.look()
        left = 60 * minutes - (time.time() - clock.start)
        if left <= 0:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
            clock.look()
            return code


def evaluated_rows(table):
    with table.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row.get(EVALUATED["k-NN 20"]) and None not in row.values()]


def read(run, clock):
    """What the run has come to."""
    with (run / "metrics.csv").open(newline="") as file:
        images = [float(row[SPEED]) for row in csv.DictReader(file) if row.get(SPEED)]
    finished = (run / "done.json").is_file()
    rows = evaluated_rows(run / "metrics.csv")
    evaluations = [
        {"step": int(row["step"]), "seconds": round(clock.rows[row["step"]]["seconds"], 1), "reference set": REFERENCE}
        | {name: float(row[column]) for name, column in EVALUATED.items() if row.get(column)}
        for row in rows
    ]
    for whole in [*evaluations[:1], *(evaluations[-1:] if finished else [])]:
        whole["reference set"] = "all rows"
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "finished": finished,
        "images per second": statistics.median(images) if images else None,
        "seconds": "wall time of all segments, with their starts, clustering and evaluating",
        "evaluated": evaluations,
    }


if __name__ == "__main__":
    main()
