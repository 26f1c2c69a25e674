"""Runs the real command line with one fault in it: `python faulty.py FAULT fit --config ...`.

Faults: `none`, `kill@step=N`, `kill@cluster=N` (while the N-th clustering computes that a method or a stage needs),
`kill@write=N` (in the middle of the N-th checkpoint's bytes), `kill@replace=N` (before the N-th rename, files of
clusters aside), `kill@onto=.EXT` (before a rename onto a file of that kind), `term@step=N`, `usr1@step=N`,
`term@evaluated=N` (the N-th batch that is evaluated), `nan@step=N`,
`collapse@step=N` (the doctor finds one), `full@write=N` (no space left for the N-th checkpoint), `limit@bytes=N` (no
file may grow beyond N bytes), `term+term@step=N` and the like (the second signal FAULTY_AFTER seconds after the first;
each checkpoint takes FAULTY_SLOW seconds to write). Losses of all steps go to the file in FAULTY_LOSSES, as hex. With
FAULT in FAULTY_CHILD instead, the second of two processes has it, with FAULT in FAULTY_PARENT besides the first.
"""

import errno
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import lightning.pytorch as pl
import torch

from ssl_lightning.callbacks import Doctor, ProbeFeatures, Recluster, SaveClusters, Throughput
from ssl_lightning.checkpoints import durable
from ssl_lightning.clustering import KMeans

torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)
counts: dict[str, int] = {}
saving: list[bool] = []  # within the pass of SaveClusters
SIGNALS = {"term": signal.SIGTERM, "usr1": signal.SIGUSR1, "usr2": signal.SIGUSR2, "int": signal.SIGINT}
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background of a script


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def due(what: str) -> bool:
    """Whether this is the moment of the fault."""
    counts[what] = counts.get(what, 0) + 1
    _, _, at = FAULT.partition("@")
    name, _, number = at.partition("=")
    return name == what and str(counts[what]) == number


def after_step(self, trainer, module, outputs, batch, batch_idx):
    before(self, trainer, module, outputs, batch, batch_idx)
    with open(os.environ["FAULTY_LOSSES"], "a") as file:
        file.write(f"{trainer.global_step} {float(outputs['loss']).hex()} {batch.index.tolist()}\n")
    if f"kill@step={trainer.global_step}" == FAULT:
        kill()
    names, _, at = FAULT.partition("@")
    if at == f"step={trainer.global_step}" and set(names.split("+")) <= SIGNALS.keys():
        first, *others = (SIGNALS[name] for name in names.split("+"))
        delay = float(os.environ.get("FAULTY_AFTER", "0"))
        if others and delay:
            for place, number in enumerate(others, 1):
                threading.Timer(place * delay, os.kill, (os.getpid(), number)).start()
        os.kill(os.getpid(), first)


def poison(self, trainer, module, batch, batch_idx):
    if f"nan@step={trainer.global_step}" == FAULT:
        batch.views[0].fill_(torch.nan)


def look(self, failure, step):
    if f"collapse@step={step}" == FAULT:
        self.found[failure.name] = True
        return f"doctor: {failure.name} at step {step}"
    return inner_look(self, failure, step)


def evaluations(self, *batch):
    inner_evaluated(self, *batch)
    if due("evaluated"):
        os.kill(os.getpid(), signal.SIGTERM)


def save_pass(self, trainer, module):
    saving.append(True)
    try:
        inner_pass(self, trainer, module)
    finally:
        saving.pop()


def cluster(self, features, k, seed=0, group=None):
    if not saving and due("cluster"):
        kill()
    return inner_cluster(self, features, k, seed, group)


def save(checkpoint, file):
    if due("write"):
        file.write(b"half of it")
        file.flush()
        if FAULT.startswith("full"):
            raise OSError(errno.ENOSPC, "No space left on device")
        kill()
    inner_save(checkpoint, file)


def save_slowly(checkpoint, file):
    file.write(b"")
    file.flush()
    until = time.monotonic() + float(os.environ["FAULTY_SLOW"])
    while time.monotonic() < until:
        time.sleep(0.01)
    inner_save(checkpoint, file)


def replace(source, target):
    saves_clusters = Path(target).parent.name == "clusters"
    if f"kill@onto={Path(target).suffix}" == FAULT or (not saves_clusters and due("replace")):
        kill()
    inner_replace(source, target)


PARENT = os.environ.get("FAULTY_PARENT", "none")
if "FAULTY_CHILD" in os.environ:  # Lightning starts its children with the same arguments
    FAULT = os.environ["FAULTY_CHILD"] if os.environ.get("LOCAL_RANK") == "1" else PARENT
else:
    FAULT = sys.argv.pop(1)
if FAULT.startswith("limit"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(FAULT.rpartition("=")[2]), resource.RLIM_INFINITY))
before = Throughput.on_train_batch_end
Throughput.on_train_batch_end = after_step
Throughput.on_train_batch_start = poison
inner_look, Doctor._diagnose = Doctor._diagnose, look
inner_evaluated, ProbeFeatures.on_validation_batch_end = ProbeFeatures.on_validation_batch_end, evaluations
inner_pass, SaveClusters._save_pass = SaveClusters._save_pass, save_pass
inner_cluster, KMeans.__call__ = KMeans.__call__, cluster
inner_save, inner_replace = torch.save, os.replace
if "write" in FAULT:
    durable.torch.save = save
if "FAULTY_SLOW" in os.environ:
    durable.torch.save = save_slowly
if "replace" in FAULT or "onto" in FAULT:
    durable.os.replace = replace
assert issubclass(Recluster, pl.Callback)

if __name__ == "__main__":
    from ssl_lightning.entry import main

    main()
