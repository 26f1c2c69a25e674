"""One piece of a long run on one GPU: trains for some minutes, stops at a step with a checkpoint, and writes JSON.

    python benchmarks/gpu.py swav --out "$OUT" [--minutes 8.5] [further options of ssl-lightning fit]

The same command again goes on where the last piece stopped; `finished` in the JSON says whether anything is left. The
recipes are the full ResNet-18 (SEER: RegNetY-400MF) in bfloat16 on CIFAR-10, from configs/, with batches for a GPU.
<out>/<method>.json: device, images/s, and linear, k-NN and few-shot accuracy with the seconds of training before each.
"""

import argparse
import csv
import json
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import lightning
import torch
import yaml

ROOT = Path(__file__).parents[1]
DEVICE = [
    *("--trainer.accelerator", "auto", "--trainer.devices", "1", "--trainer.precision", "bf16-mixed"),
    *("--trainer.enable_progress_bar", "false"),
]
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
    ],
    "deepcluster_v2": ["--trainer.max_epochs", "200", "--model.optimizer.lr", "1.2", *LARGE],
    "seer": ["--trainer.max_epochs", "100", "--data.batch_size", "512", "--trainer.val_check_interval", "970"],
}
JUDGED = {"linear": "eval/linear/top1", "k-NN 20": "eval/knn/top1", "k-NN 200": "eval/knn200/top1"}
JUDGED |= {f"{shots}-shot": f"eval/fewshot/5way{shots}shot" for shots in (1, 5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=list(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="where the run and the JSON lie")
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--seed", type=int, default=0)
    options, further = parser.parse_known_args()
    name = f"{options.method}-s{options.seed}"
    command = [sys.executable, "-m", "ssl_lightning", "fit", "--config", f"configs/{options.method}.yaml"]
    command += ["--config", "configs/data/cifar10.yaml", *DEVICE, *RECIPES[options.method]]
    command += ["--seed_everything", str(options.seed), "--run.dir", str(options.out.resolve()), "--run.name", name]
    code = run_for(options.minutes, [*command, *further])
    if code not in (0, 143):  # 143: told to stop, and left a checkpoint
        sys.exit(code)
    figures = read(options.out / name)
    (options.out / f"{options.method}.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures | {"judged": figures["judged"][-1:]}, indent=1))


def run_for(minutes, command):
    """Exit code of a process that is told to stop when its time is over."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        return process.wait()


def read(run):
    """What the run has come to."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = [float(row["train/images_per_second"]) for row in rows if row.get("train/images_per_second")]
    speed = statistics.median(images) if images else None
    batch = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["batch_size"]
    judged = [
        {"step": int(row["step"]), "seconds of training": int(row["step"]) * batch / speed if speed else 0.0}
        | {name: float(row[column]) for name, column in JUDGED.items() if row.get(column)}
        for row in rows
        if row.get(JUDGED["k-NN 20"])
    ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    versions = {"torch": torch.__version__, "lightning": lightning.__version__}
    finished = (run / "done.json").is_file()
    return {"device": device, **versions, "finished": finished, "images per second": speed, "judged": judged}


if __name__ == "__main__":
    main()
