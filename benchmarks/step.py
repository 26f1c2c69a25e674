"""What the framework costs: a DeepCluster step under the trainer against a bare loop with the same mathematics.

    python benchmarks/step.py [--rounds 15] [--threads 1] [--json PATH]

Two copies of one method, one under `Trainer` with everything that the command line adds to a run (metrics table,
throughput, progress bar) and eight running means on top, one in a plain Python loop over the same kind of loader with
the same views, labels, loss and optimizer. They take turns within one training epoch, some steps each, so what else
the machine does falls on both; wall time, the median over the rounds with its least and largest. The tiny network shows
what a step costs beside the mathematics, the full ResNet-18 what share that is. Peak memory is measured in two
processes of their own, 20 full-size steps each.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch
from torchmetrics import MeanMetric

from ssl_lightning.callbacks import ImagesProgressBar, Throughput
from ssl_lightning.callbacks.publish import publish
from ssl_lightning.clustering import KMeans
from ssl_lightning.data import SyntheticImages
from ssl_lightning.functional import pseudo_label_loss
from ssl_lightning.methods import DeepCluster
from ssl_lightning.models import ResNet18
from ssl_lightning.runs import MetricsTable

CLUSTERS = 100
MEMORY_STEPS = 20


@dataclass(frozen=True)
class Size:
    """How large a network, on what, and how many steps each side takes in its turn."""

    width: int
    image_size: int
    batch_size: int
    steps: int


SIZES = {
    "tiny: ResNet-18 of width 2, 8 px, batch 16": Size(2, 8, 16, 50),
    "full: ResNet-18 of width 64, 32 px, batch 128": Size(64, 32, 128, 2),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--memory-of", choices=("trainer", "bare"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    full = SIZES["full: ResNet-18 of width 64, 32 px, batch 128"]
    if options.memory_of:
        print(peak_memory(options.memory_of, full))
        return
    print(f"{platform.machine()}, torch {torch.__version__}, lightning {pl.__version__}, {options.threads} thread(s)")
    figures = {name: compare(size, options.rounds) for name, size in SIZES.items()}
    for name, figure in figures.items():
        show(name, figure)
    peaks = {side: memory_in_a_process(side, options.threads) for side in ("trainer", "bare")}
    print(f"peak memory, full: {peaks['trainer']:.0f} MiB against {peaks['bare']:.0f}: ", end="")
    print(f"{peaks['trainer'] / peaks['bare']:.3f}x")
    if options.json:
        options.json.write_text(json.dumps(figures | {"peak MiB": peaks}, indent=2))


def make(size, steps):
    """A method with labels and data that last for so many steps."""
    samples = max(size.batch_size * steps, 10 * CLUSTERS)
    data = SyntheticImages(samples=samples, image_size=size.image_size, batch_size=size.batch_size)
    data.setup("fit")
    model = DeepCluster(CLUSTERS, ResNet18(width=size.width), sampler="natural", image_size=size.image_size)
    model.pseudo_labels.assign([KMeans(iterations=1)(torch.randn(samples, 8), CLUSTERS)])
    return model, data


class BareLoop:
    """The same step without a framework."""

    def __init__(self, size, steps):
        self.model, self.data = make(size, steps)
        self.optimizer = self.model.configure_optimizers()
        self.batches = iter(self.data.train_dataloader())
        self.model.train()

    def run(self, steps):
        """Take so many steps."""
        for _ in range(steps):
            batch = self.data.augment(next(self.batches), epoch=0)
            logits = self.model.head(self.model(batch.views[0]))
            loss = pseudo_label_loss([logits], self.model.pseudo_labels[batch.index])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class EightMeans(pl.Callback):
    """Eight numbers of every step, their means written at the trainer's rhythm: what a rich method would log."""

    def __init__(self):
        self.means = [MeanMetric() for _ in range(8)]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Update each; write and reset them when it is time."""
        for mean in self.means:
            mean.update(outputs["loss"])
        if trainer.global_step % trainer.log_every_n_steps == 0:
            publish(trainer, {f"train/mean{i}": float(mean.compute()) for i, mean in enumerate(self.means)})
            for mean in self.means:
                mean.reset()


class TakeTurns(pl.Callback):
    """Stops the trainer's clock every so many steps and lets the bare loop run as many."""

    def __init__(self, bare, steps):
        self.bare, self.steps = bare, steps
        self.trainer_seconds, self.bare_seconds = [], []
        self.since = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """At the end of the trainer's turn take the bare loop's, then start the clock again."""
        if batch_idx % self.steps:
            return
        now = time.perf_counter()
        if self.since is not None:
            self.trainer_seconds.append((now - self.since) / self.steps)
        begin = time.perf_counter()
        self.bare.run(self.steps)
        self.bare_seconds.append((time.perf_counter() - begin) / self.steps)
        self.since = time.perf_counter()


def train(size, steps, *callbacks):
    """An epoch under the trainer as the command line sets it up."""
    model, data = make(size, steps)
    # the bar is drawn and paid for, but not shown among the figures
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as unseen, redirect_stdout(unseen):
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=[MetricsTable(Path(folder) / "metrics.csv")],
            callbacks=[ImagesProgressBar(), Throughput(), EightMeans(), *callbacks],
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
            log_every_n_steps=10,
        )
        trainer.fit(model, datamodule=data)


def compare(size, rounds):
    """Seconds a step on both sides, round by round; the first round warms up."""
    steps = size.steps * (rounds + 3)
    turns = TakeTurns(BareLoop(size, steps), size.steps)
    train(size, steps, turns)
    ours, bare = turns.trainer_seconds[1 : rounds + 1], turns.bare_seconds[1 : rounds + 1]
    return {
        "trainer ms": statistics.median(ours) * 1e3,
        "bare ms": statistics.median(bare) * 1e3,
        "ratio": spread([a / b for a, b in zip(ours, bare, strict=True)]),
        "overhead ms": spread([(a - b) * 1e3 for a, b in zip(ours, bare, strict=True)]),
    }


def spread(values):
    return [min(values), statistics.median(values), max(values)]


def show(name, figure):
    low, middle, high = figure["ratio"]
    least, median, most = figure["overhead ms"]
    print(f"{name}: {figure['trainer ms']:.2f} ms under the trainer, {figure['bare ms']:.2f} bare")
    print(f"    ratio {middle:.3f} ({low:.3f}-{high:.3f}), overhead {median:.2f} ms ({least:.2f} to {most:.2f})")


def peak_memory(side, size):
    """MiB this process has held at most, after some steps of one side."""
    if side == "bare":
        BareLoop(size, MEMORY_STEPS).run(MEMORY_STEPS)
    else:
        train(size, MEMORY_STEPS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_in_a_process(side, threads):
    command = [sys.executable, __file__, "--memory-of", side, "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
