"""Runs of a claim: one command line run for each arm and seed, resumable cell by cell, and what they say together."""

import argparse
import csv
import io
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import yaml
from tqdm import tqdm

from ssl_lightning import __version__
from ssl_lightning.clustering import Clustering
from ssl_lightning.data import CuratedImages
from ssl_lightning.types import UNLABELLED

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEEDS = (0, 1, 2)
BATCH = 128
EVERY = 50_000
"""Training images that there are."""
ROWS = 3
"""Steps between two rows of training."""


@dataclass(frozen=True)
class Scale:
    """Size at which the claim is tested; the default fits two cores: a fifth of CIFAR-10.

    Attributes:
        epochs: Of every cell.
        width: Of the ResNet-18.
        image_size: In pixels.
        images: How many of the 50,000.
        accelerator: Of the trainer.
    """

    epochs: int
    width: int = 8
    image_size: int = 16
    images: int = 10_000
    accelerator: str = "cpu"

    @property
    def steps(self):
        """Of an epoch."""
        return self.images // BATCH

    def settings(self):
        """In the form of a config."""
        backbone = {"class_path": "ssl_lightning.models.ResNet18", "init_args": {"width": self.width}}
        data = {"image_size": self.image_size, "batch_size": BATCH}
        return {"model": {"init_args": {"backbone": backbone}}, "data": {"init_args": data}}


def parse(doc, name, epochs, images=Scale.images):
    """Arguments of every script: the folder, the scale, cells at a time, and minutes of this call."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/claims") / name)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then; the same command resumes")
    parser.add_argument("--epochs", type=int, default=epochs)
    for field in fields(Scale)[1:]:
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.set_defaults(images=images)
    options = parser.parse_args()
    scale = Scale(**{field.name: getattr(options, field.name) for field in fields(Scale)})
    return options.out.resolve(), scale, options.jobs, options.minutes


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: What the table calls it.
        config: A file in configs/.
        settings: What it has of its own, in the form of a config; `SEED` in it becomes the cell's seed.
        times: How many times the epochs of the scale it trains; rounded to whole epochs, at least one.
        seeds_after: What is added to the cell's seed, for arms that differ in it alone.
    """

    name: str
    config: str
    settings: dict
    times: float = 1
    seeds_after: int = 0


def run_cells(arms, folder, scale, jobs, minutes=math.inf, own_images=False):
    """Train every arm with every seed, several at a time; finished cells are kept, unfinished ones resume.

    Args:
        arms: All of them.
        folder: Of the claim.
        scale: Size at which it is tested.
        jobs: Cells at a time.
        minutes: When to stop.
        own_images: Whether the arms name their data; else they train on `scale.images` of CIFAR-10.

    Returns:
        Minutes that this call took, or None where its time was over before all cells were finished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep_scale(folder / "scale.json", scale)
    if not own_images:
        choose_images(folder / "images.safetensors", scale.images)
    cells = [(arm, seed) for seed in SEEDS for arm in arms]
    cells.sort(key=lambda cell: -cell[0].times)  # the longest first, else the last one is waited for alone
    begin = time.perf_counter()
    end = begin + 60 * minutes
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(cells), desc="Cells", unit="cell") as bar:
        finished = 0
        for done in pool.map(lambda cell: run_cell(cell[0], cell[1], folder, scale, end), cells):
            finished += done
            bar.update(done)
    if finished < len(cells):
        print(f"{finished} of {len(cells)} cells are finished; the same command resumes")
        return None
    return (time.perf_counter() - begin) / 60


def keep_scale(path, scale):
    """One folder, one scale."""
    if path.exists() and json.loads(path.read_text()) != asdict(scale):
        sys.exit(f"found cells of another scale, {path.read_text()}, in {path.parent}; expected {scale}: give --out")
    path.write_text(json.dumps(asdict(scale)))


def choose_images(path, count):
    """The same part of the training images for all; no list where it is all of them."""
    if count == EVERY or path.exists():
        return
    data = CuratedImages(path="cifar10.tar.xz")
    data.setup("fit")
    chosen = np.random.default_rng(0).choice(len(data.training), count, replace=False)
    labels = torch.full((len(data.training),), UNLABELLED)
    labels[torch.from_numpy(chosen)] = 0
    one = Clustering(labels, torch.zeros(len(labels)), torch.zeros(1, 1), torch.tensor([count]))
    one.save(path, {"data": data.fingerprint})  # a stage file, which machines without pyarrow read too


def run_cell(arm, seed, folder, scale, end=math.inf):
    """Whether one run by the command line is finished; an error ends the claim with the output of the run."""
    name = cell_name(arm, seed)
    if (folder / "runs" / name / "done.json").exists():
        return True
    if time.perf_counter() >= end:
        return False
    images = folder / "images.safetensors"
    subset = {"data": {"init_args": {"subset": {"path": str(images)} if images.exists() else None}}}
    files = [ROOT / "configs" / arm.config, ROOT / "configs" / "data" / "cifar10.yaml"]
    for part, settings in {"small": scale.settings(), "subset": subset, "own": arm.settings}.items():
        files.append(folder / f"{name}.{part}.yaml")
        files[-1].write_text(yaml.safe_dump(settings).replace("SEED", str(seed)))
    command = [sys.executable, "-m", "ssl_lightning", "fit"]
    command += [word for file in files for word in ("--config", str(file))]
    epochs = str(max(1, round(arm.times * scale.epochs)))
    command += ["--trainer.max_epochs", epochs, "--trainer.check_val_every_n_epoch", epochs]
    command += ["--trainer.log_every_n_steps", str(ROWS), "--trainer.enable_progress_bar", "false"]
    command += ["--trainer.accelerator", scale.accelerator, "--seed_everything", str(seed + arm.seeds_after)]
    command += ["--run.dir", str(folder / "runs"), "--run.name", name]
    return run_command(command, folder / f"{name}.log", end)


def write_clusters(path, checkpoint, seed, config, k, settings, scale, end=math.inf):
    """Whether the stage edge `<path>.safetensors` is there; else `predict` makes it, under the same name.

    Args:
        path: In the folder of the claim's runs, without an ending.
        checkpoint: Of the network that computes the features to cluster.
        seed: Of the clustering.
        config: A file in configs/.
        k: Clusters.
        settings: What it has of its own, in the form of a config.
        scale: Size at which the claim is tested.
        end: When to stop.
    """
    if path.with_name(f"{path.name}.safetensors").exists():
        return True
    if time.perf_counter() >= end:
        return False
    overlay = path.parent.with_name(f"{path.name}.yaml")
    overlay.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "ssl_lightning", "predict", "--config", str(ROOT / "configs" / config)]
    command += ["--config", str(ROOT / "configs" / "data" / "cifar10.yaml"), "--config", str(overlay)]
    command += ["--ckpt_path", str(checkpoint), "--seed_everything", str(seed)]
    command += ["--trainer.callbacks.path", str(path), "--trainer.callbacks.num_clusters", str(k)]
    command += ["--trainer.accelerator", scale.accelerator, "--trainer.enable_progress_bar", "false"]
    command += ["--run.dir", str(path.parent), "--run.name", path.name]
    return run_command(command, path.parent.with_name(f"{path.name}.log"), end)


def run_command(command, log, end=math.inf):
    """Whether a command finished in time; an error ends the claim with the output of the command."""
    path = os.pathsep.join([str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "SSL_LIGHTNING_PLUGINS": "arms"}
    with log.open("w") as file:
        cell = subprocess.Popen(
            command, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            code = cell.wait(None if end == math.inf else max(0.0, end - time.perf_counter()))
        except subprocess.TimeoutExpired:
            cell.send_signal(signal.SIGTERM)
            code = cell.wait()
            if code in (143, -signal.SIGTERM):  # it left a checkpoint, or had not come to its first step
                return False
    if code != 0:
        sys.exit(f"{log.stem} ended with {code}: {log.read_text()[-1500:]}")
    return True


def cell_name(arm, seed):
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{arm.name} s{seed}")


def checkpoint(folder, arm, seed):
    """The last one of a cell; the seed may be the word that settings have for it."""
    return folder / "runs" / cell_name(arm, seed) / "checkpoints" / "last.ckpt"


def write_tar(path, members):
    """Whole or absent."""
    temporary = path.with_name(f".{path.name}")
    with tarfile.open(temporary, "w") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    os.replace(temporary, path)


def rows(folder, arm, seed):
    """The metrics table of a cell."""
    with (folder / "runs" / cell_name(arm, seed) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def evaluations(folder, arm, metric):
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


def compare(ours, theirs):
    """Whether "ours beats theirs" holds."""
    won = beats(ours, theirs), beats(theirs, ours)
    return {(True, False): "holds", (False, True): "fails"}.get(won, "undecided at this size")


def text(values):
    """Mean and standard deviation over seeds."""
    return f"{statistics.mean(values):.1f} ±{statistics.stdev(values):.1f}"


def report(folder, name, arms, scale, minutes, outcomes, extra=None, by_seed="k-NN 20"):
    """What the runs' own probes say of every arm, as `show` has it."""
    columns = {"k-NN 20": "knn/top1", "linear": "linear/top1"}
    before = {column: untrained(folder, arms[0], metric) for column, metric in columns.items()}
    figures = {
        arm.name: {column: evaluations(folder, arm, metric) for column, metric in columns.items()} for arm in arms
    }
    show(folder, name, figures, before, scale, minutes, outcomes, extra or {}, by_seed)


def show(folder, name, figures, before, scale, minutes, outcomes, extra, by_seed):
    """Print the table, with one column of it for each seed, and the outcomes, and keep them in a file.

    Args:
        folder: Of the claim.
        name: Of the file.
        figures: Percent of every arm in every column, one number a seed.
        before: The same of the untrained network.
        scale: Size at which the claim was tested.
        minutes: That this call took.
        outcomes: Of each part of the claim.
        extra: Further columns: a number of every arm and seed.
        by_seed: The column that is shown seed by seed too.
    """
    print("|".join(["", "arm", *before, *(f"{by_seed.split()[0]} of seed {seed}" for seed in SEEDS), *extra, ""]))
    print("|---" * (2 + len(before) + len(SEEDS) + len(extra) - 1) + "|")
    print("|".join(["", "untrained", *map(text, before.values()), ""]))
    for arm, columns in figures.items():
        seeds = [f"{value:.1f}" for value in columns[by_seed]]
        print("|".join(["", arm, *map(text, columns.values()), *seeds, *(text(of[arm]) for of in extra.values()), ""]))
    for claim, outcome in outcomes.items():
        print(f"- {claim}: **{outcome}**")
    facts = {
        "scale": asdict(scale),
        "minutes of this call": minutes,
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    kept = {"version": __version__, **facts, "arms": figures, "outcomes": outcomes, "extra": extra}
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1))
