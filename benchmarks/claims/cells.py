"""Runs of a claim: one command line run for each arm and seed, resumable cell by cell, and what they say together."""

import csv
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import yaml
from pyarrow import parquet
from tqdm import tqdm

from ssl_lightning import __version__
from ssl_lightning.data import CuratedImages

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEEDS = (0, 1, 2)
PICTURES = 10_000
SMALL = {
    "model": {"init_args": {"backbone": {"class_path": "ssl_lightning.models.ResNet18", "init_args": {"width": 8}}}},
    "data": {"init_args": {"image_size": 16, "batch_size": 128}},
}
"""ResNet-18 of width 8 at 16 pixels, a fifth of CIFAR-10: what two cores can do."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: What the table calls it.
        config: A file in configs/.
        settings: What it has of its own, in the form of a config.
    """

    name: str
    config: str
    settings: dict


def run_cells(arms, folder, epochs, jobs):
    """Train every arm with every seed, several at a time; what is finished is left alone, what was begun goes on.

    Returns:
        Minutes that this call took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    choose_pictures(folder / "pictures.parquet")
    cells = [(arm, seed) for seed in SEEDS for arm in arms]
    begin = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(cells), desc="Cells", unit="cell") as bar:
        for _ in pool.map(lambda cell: run_cell(*cell, folder, epochs), cells):
            bar.update()
    return (time.perf_counter() - begin) / 60


def choose_pictures(path):
    """The same fifth of the training pictures for all."""
    if not path.exists():
        data = CuratedImages(path="cifar10.tar.xz")
        data.setup("fit")
        chosen = np.random.default_rng(0).choice(data.training.sample_ids.numpy(), PICTURES, replace=False)
        parquet.write_table(pa.table({"sample_id": np.sort(chosen)}), path)


def run_cell(arm, seed, folder, epochs):
    """One run by the command line; an error ends the claim with what the run said."""
    name = cell_name(arm, seed)
    subset = {"data": {"init_args": {"subset": {"path": str(folder / "pictures.parquet")}}}}
    files = [ROOT / "configs" / arm.config, ROOT / "configs" / "data" / "cifar10.yaml"]
    for part, settings in {"small": SMALL, "subset": subset, "own": arm.settings}.items():
        files.append(folder / f"{name}.{part}.yaml")
        files[-1].write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "ssl_lightning", "fit"]
    command += [word for file in files for word in ("--config", str(file))]
    command += ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(epochs)]
    command += ["--trainer.log_every_n_steps", "3", "--trainer.enable_progress_bar", "false"]
    command += ["--trainer.accelerator", "cpu", "--seed_everything", str(seed)]
    command += ["--run.dir", str(folder / "runs"), "--run.name", name]
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}", "SSL_LIGHTNING_PLUGINS": "arms"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{name} ended with {done.returncode}: {done.stderr[-1500:]}")


def cell_name(arm, seed):
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{arm.name} s{seed}")


def rows(folder, arm, seed):
    """The metrics table of a cell."""
    with (folder / "runs" / cell_name(arm, seed) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def judged(folder, arm, metric):
    """Percent of the trained network, one number a seed."""
    column = f"eval/{metric}"
    return [100 * [float(row[column]) for row in rows(folder, arm, seed) if row.get(column)][-1] for seed in SEEDS]


def untrained(folder, arm, metric):
    """The same before the first step."""
    column = f"eval/{metric}"
    return [100 * next(float(row[column]) for row in rows(folder, arm, seed) if row.get(column)) for seed in SEEDS]


def beats(ours, theirs):
    """Whether one arm wins: on every seed, or by more than two standard deviations of the paired differences."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    spread = statistics.stdev(differences)
    return min(differences) > 0 or (statistics.mean(differences) > 2 * spread > 0)


def text(values):
    """Mean and standard deviation over seeds."""
    return f"{statistics.mean(values):.1f} ±{statistics.stdev(values):.1f}"


def report(folder, name, arms, minutes, outcomes, extra=None):
    """Print the table and the outcomes, and keep them in a file."""
    extra = extra or {}
    columns = {"k-NN 20": "knn/top1", "linear": "linear/top1"}
    print("|".join(["", "arm", *columns, *(f"k-NN of seed {seed}" for seed in SEEDS), *extra, ""]))
    print("|---" * (2 + len(columns) + len(SEEDS) + len(extra) - 1) + "|")
    figures = {}
    print("|".join(["", "untrained", *(text(untrained(folder, arms[0], m)) for m in columns.values()), ""]))
    for arm in arms:
        figures[arm.name] = {column: judged(folder, arm, metric) for column, metric in columns.items()}
        means = [text(values) for values in figures[arm.name].values()]
        seeds = [f"{value:.1f}" for value in figures[arm.name]["k-NN 20"]]
        print("|".join(["", arm.name, *means, *seeds, *(text(values[arm.name]) for values in extra.values()), ""]))
    for claim, outcome in outcomes.items():
        print(f"- {claim}: **{outcome}**")
    facts = {"minutes of this call": minutes, "machine": platform.machine(), "torch": torch.__version__}
    kept = {"version": __version__, **facts, "arms": figures, "outcomes": outcomes, "extra": extra}
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1))
