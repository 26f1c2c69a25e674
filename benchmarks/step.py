"""What the framework costs: a step of each method under the trainer against a bare loop with the same mathematics.

    python benchmarks/step.py [--methods deepcluster ...] [--sizes tiny full] [--rounds 15] [--threads 1] [--json PATH]

Two copies of one method, one under `Trainer` with everything that the command line adds to a run (metrics table,
progress bar, throughput, diagnostic signals, doctor, report, checkpointing), a row every 10 steps (the default), and
eight running means in one sum on top; one in a plain Python loop over the same kind of loader with the same views, loss
and optimizer. They take turns within one training epoch, ten steps or one, so what else the machine does falls on both.
Wall time: the median over all turns with its least and largest; and the difference between the fastest tenths of both
sides' turns: other work on the machine can only make a turn longer, so these are the ones that it touched least. The
tiny network shows what a step costs beside the mathematics, the full ResNet-18 what share that is. Peak memory is
measured in two processes of their own, 20 full-size steps each. SEER is SwAV with another network; ClusterFit's step is
DeepCluster's.
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
from torch import nn
from torch.nn import functional as F

from ssl_lightning.callbacks import (
    CountFLOPs,
    DiagnosticSignals,
    Doctor,
    ImagesProgressBar,
    NeighborPurity,
    Throughput,
    WriteReport,
)
from ssl_lightning.callbacks.mean_vector import MeanVector
from ssl_lightning.callbacks.publish import publish
from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.cli.quiet import NoProfiler
from ssl_lightning.clustering import KMeans
from ssl_lightning.data import SyntheticImages
from ssl_lightning.data.views import View
from ssl_lightning.functional import (
    byol_loss,
    instance_loss,
    local_aggregation_loss,
    moclr_loss,
    nt_xent_loss,
    pseudo_label_loss,
    sinkhorn,
    swapped_prediction_loss,
)
from ssl_lightning.methods import (
    BYOL,
    DeepCluster,
    DeepClusterV2,
    InstanceRecognition,
    LocalAggregation,
    MoCLR,
    SimCLR,
    SwAV,
)
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.runs import Checkpointing, MetricsTable, Preemption, StopBetweenBatches

CLUSTERS = 100
MEMORY_STEPS = 20


@dataclass(frozen=True)
class Size:
    """How large a network, on what, how many steps each side takes in its turn, and how many turns make a round."""

    width: int
    image_size: int
    batch_size: int
    steps: int
    turns: int


SIZES = {
    "tiny": Size(2, 8, 16, 10, 10),
    "full": Size(64, 32, 128, 1, 1),
}
"""ResNet-18 of width 2 on 8 px in batches of 16, and of width 64 on 32 px in batches of 128."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory, which takes longer than time")
    parser.add_argument("--memory-of", choices=("trainer", "bare"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak_memory(METHODS[options.methods[0]], options.memory_of, SIZES["full"]))
        return
    print(f"{platform.machine()}, torch {torch.__version__}, lightning {pl.__version__}, {options.threads} thread(s)")
    figures = {name: measure(name, options) for name in options.methods}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def measure(name, options):
    """All figures of one method, printed as they come."""
    print(name)
    figures = {}
    for text in options.sizes:
        figures[text] = compare(METHODS[name], SIZES[text], options.rounds * SIZES[text].turns)
        show(text, figures[text])
    if options.no_memory or "full" not in options.sizes:
        return figures
    peaks = {side: memory_in_a_process(name, side, options.threads) for side in ("trainer", "bare")}
    print(f"peak memory, full: {peaks['trainer']:.0f} MiB against {peaks['bare']:.0f}: ", end="")
    print(f"{peaks['trainer'] / peaks['bare']:.3f}x")
    return figures | {"peak MiB": peaks}


def make_deepcluster(size, samples):
    model = DeepCluster(
        CLUSTERS, ResNet18(width=size.width), sampler="natural", preprocessing=Preprocessing(size.image_size)
    )
    model.pseudo_labels.assign([labels(samples)])
    return model


def deepcluster_loss(model, batch):
    logits = model.head(model(batch.views[0]))
    return pseudo_label_loss([logits], model.pseudo_labels[batch.index])


def make_swav(size, samples):
    return SwAV(CLUSTERS, ResNet18(width=size.width), preprocessing=Preprocessing(size.image_size), freeze_epochs=0.0)


def swav_loss(model, batch):
    model.prototypes.normalize_()
    scores = model.prototypes(torch.cat(model.embed_views(batch.views))).chunk(2)
    codes = [sinkhorn(score.detach(), 0.05, 3) for score in scores]
    return swapped_prediction_loss(list(scores), codes, 0.1)


def make_deepcluster_v2(size, samples):
    model = DeepClusterV2(CLUSTERS, backbone=ResNet18(width=size.width), preprocessing=Preprocessing(size.image_size))
    for bank in model.banks:
        bank.fill(torch.randn(samples, 128))
    model.pseudo_labels.assign([labels(samples)] * model.num_heads)
    return model


def deepcluster_v2_loss(model, batch):
    embeddings = model.embed_views(batch.views)
    scores = [head(torch.cat(embeddings)) for head in model.heads]
    for bank, view in zip(model.banks, embeddings, strict=True):
        bank.write(batch.index, view.detach())
    return pseudo_label_loss(scores, model.pseudo_labels[batch.index].repeat(2, 1), 0.1)


def make_instance_recognition(size, samples):
    model = InstanceRecognition(backbone=ResNet18(width=size.width), preprocessing=Preprocessing(size.image_size))
    model.bank.fill(torch.randn(samples, 128))
    return model


def unit_and_memory(model, batch):
    """Embeddings, and the memory, which first takes up those of the step before: its gradients are through by now."""
    if model._last_embeddings is not None:
        model.bank.write(*model._last_embeddings)
    z = F.normalize(model.projector(model(batch.views[0])).float(), dim=1)
    model._last_embeddings = batch.index, z.detach()
    return z, model.bank.rows


def instance_recognition_loss(model, batch):
    z, memory = unit_and_memory(model, batch)
    return instance_loss(z, batch.index, memory, model.temperature)


def make_local_aggregation(size, samples):
    options = {
        "num_clusters": CLUSTERS,
        "num_neighbors": samples // 10,
        "preprocessing": Preprocessing(size.image_size),
    }
    model = LocalAggregation(backbone=ResNet18(width=size.width), **options)
    model.bank.fill(torch.randn(samples, 128))
    model.pseudo_labels.assign([labels(samples)] * model.num_heads)
    return model


def local_aggregation_step(model, batch):
    z, memory = unit_and_memory(model, batch)
    clusters = model.pseudo_labels.all_rows()
    return local_aggregation_loss(z, batch.index, memory, clusters, model.num_neighbors, model.temperature)


def make_simclr(size, samples):
    return SimCLR(ResNet18(width=size.width), preprocessing=Preprocessing(size.image_size))


def simclr_loss(model, batch):
    z1, z2 = model.projector(model(torch.cat(batch.views))).chunk(2)
    return nt_xent_loss(z1, z2, model.temperature)


def make_byol(size, samples):
    hidden = (64 * size.width,)  # 4096 for the full network
    return BYOL(
        ResNet18(width=size.width), hidden=hidden, predictor_hidden=hidden, preprocessing=Preprocessing(size.image_size)
    )


def make_moclr(size, samples):
    return MoCLR(ResNet18(width=size.width), hidden=(64 * size.width,), preprocessing=Preprocessing(size.image_size))


def with_teacher(model, batch):
    """What the network and its average, which follows the last update first, make of both views."""
    model.teacher.follow(nn.Sequential(model.backbone, model.projector), 0, 1000)
    with torch.no_grad():
        targets = [model.teacher(view) for view in batch.views]
    return [model.projector(model(view)) for view in batch.views], targets


def byol_step(model, batch):
    (z1, z2), targets = with_teacher(model, batch)
    return byol_loss(model.predictor(z1), model.predictor(z2), *targets)


def moclr_step(model, batch):
    embeddings, targets = with_teacher(model, batch)
    return moclr_loss(*embeddings, *targets, model.temperature)


METHODS = {
    "deepcluster": (1, make_deepcluster, deepcluster_loss),
    "swav": (2, make_swav, swav_loss),
    "deepcluster_v2": (2, make_deepcluster_v2, deepcluster_v2_loss),
    "instance_recognition": (1, make_instance_recognition, instance_recognition_loss),
    "local_aggregation": (1, make_local_aggregation, local_aggregation_step),
    "simclr": (2, make_simclr, simclr_loss),
    "byol": (2, make_byol, byol_step),
    "moclr": (2, make_moclr, moclr_step),
}
"""Number of views, the method, and its loss written out."""


def labels(samples):
    return KMeans(iterations=1)(torch.randn(samples, 8), CLUSTERS)


def make(method, size, steps):
    """A method and data that last for so many steps."""
    samples = max(size.batch_size * steps, 10 * CLUSTERS)
    count, build, _ = method
    views = [View(count=count)]
    data = SyntheticImages(samples=samples, image_size=size.image_size, batch_size=size.batch_size, views=views)
    data.setup("fit")
    return build(size, samples), data


class BareLoop:
    """The same step without a framework."""

    def __init__(self, method, size, steps):
        _, _, self.loss = method
        self.model, self.data = make(method, size, steps)
        self.optimizer = self.model.configure_optimizers()
        self.batches = iter(self.data.train_dataloader())
        self.model.train()

    def run(self, steps):
        """Take so many steps."""
        for _ in range(steps):
            batch = self.data.augment(next(self.batches), epoch=0)
            loss = self.loss(self.model, batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class EightMeans(pl.Callback):
    """Eight numbers of every step, their means written at the trainer's logging interval, as a method may log.

    They share one sum, as diagnostic signals do; a torchmetrics object costs a twentieth of a millisecond each.
    """

    def __init__(self):
        self.means = MeanVector(8)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Add them; write and reset the means when it is time."""
        self.means.update(torch.stack([outputs["loss"]] * 8))
        if trainer.global_step % trainer.log_every_n_steps == 0:
            publish(trainer, {f"train/mean{i}": mean for i, mean in enumerate(self.means.compute().tolist())})
            self.means.reset()


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


def train(method, size, steps, *callbacks):
    """An epoch under the trainer as the command line sets it up."""
    model, data = make(method, size, steps)
    # the progress bar is rendered and its time counted, but not shown among the figures
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as unseen, redirect_stdout(unseen):
        report, checkpointing = WriteReport(f"{folder}/report"), Checkpointing(f"{folder}/checkpoints")
        signs = [Throughput(), CountFLOPs(), DiagnosticSignals(), NeighborPurity(), Doctor()]
        added = [ImagesProgressBar(), *signs, report, checkpointing, StopBetweenBatches(Preemption())]
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=2,
            max_steps=steps,
            logger=[MetricsTable(Path(folder) / "metrics.csv")],
            plugins=[DurableCheckpointIO()],
            profiler=NoProfiler(),
            callbacks=[*added, EightMeans(), *callbacks],
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
            log_every_n_steps=10,  # the default of the command line
        )
        trainer.fit(model, datamodule=data)


def compare(method, size, turns):
    """Seconds a step on both sides, turn by turn; the first turn warms up."""
    steps = size.steps * (turns + 3)
    clock = TakeTurns(BareLoop(method, size, steps), size.steps)
    train(method, size, steps, clock)
    ours, bare = clock.trainer_seconds[1 : turns + 1], clock.bare_seconds[1 : turns + 1]
    return {
        "trainer ms": statistics.median(ours) * 1e3,
        "bare ms": statistics.median(bare) * 1e3,
        "ratio": spread([a / b for a, b in zip(ours, bare, strict=True)]),
        "overhead ms": spread([(a - b) * 1e3 for a, b in zip(ours, bare, strict=True)]),
        "undisturbed ms": [fastest(ours) * 1e3, fastest(bare) * 1e3],
    }


def fastest(seconds):
    """The mean of the fastest tenth."""
    return statistics.mean(sorted(seconds)[: max(1, len(seconds) // 10)])


def spread(values):
    return [min(values), statistics.median(values), max(values)]


def show(name, figure):
    low, middle, high = figure["ratio"]
    least, median, most = figure["overhead ms"]
    print(f"{name}: {figure['trainer ms']:.2f} ms under the trainer, {figure['bare ms']:.2f} bare")
    print(f"    ratio {middle:.3f} ({low:.3f}-{high:.3f}), overhead {median:.2f} ms ({least:.2f} to {most:.2f})")
    ours, bare = figure["undisturbed ms"]
    print(f"    undisturbed: {ours:.2f} ms, {bare:.2f} bare: ratio {ours / bare:.3f}, overhead {ours - bare:.2f} ms")


def peak_memory(method, side, size):
    """MiB this process has held at most, after some steps of one side."""
    if side == "bare":
        BareLoop(method, size, MEMORY_STEPS).run(MEMORY_STEPS)
    else:
        train(method, size, MEMORY_STEPS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_in_a_process(name, side, threads):
    command = [sys.executable, __file__, "--methods", name, "--memory-of", side, "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
