"""Configs, checkpoints and stage files from strangers: none runs code, writes elsewhere, connects, or hangs."""

import json
import random
import shutil
from pathlib import Path

from .bench import Bench
from .cells import Cell, Outcome
from .forks import Done

LIMIT = 30.0
"""Seconds after which a command counts as hung."""
METHOD = "ssl_lightning.methods.DeepCluster"


def _optimizer(path: str, /, **arguments) -> dict:
    return {"model": {"class_path": METHOD, "init_args": {"optimizer": {"class_path": path, "init_args": arguments}}}}


def _callback(path: str, /, **arguments) -> dict:
    return {"trainer": {"callbacks": [{"class_path": path, "init_args": arguments}]}}


def _trainer(**arguments) -> dict:
    return {"trainer": arguments}


def _with(path: str, /, **arguments) -> dict:
    return {"class_path": path, "init_args": arguments}


TOUCH = "open('MARKER','w')"
DESCRIPTIONS: dict[str, dict] = {
    "a function for an optimizer": _optimizer("torch.utils.collect_env.run", command="echo > MARKER"),
    "a class method for an optimizer": _optimizer("torch._inductor.codecache.PyCodeCache.load", source_code=TOUCH),
    "a download for an optimizer": _optimizer(
        "torch.hub.download_url_to_file", url="file:///etc/hostname", dst="MARKER"
    ),
    "torch.save for an optimizer": _optimizer("torch.save", obj=1, f="MARKER"),
    "torch.load for an optimizer": _optimizer("torch.load", f="payload.pt", weights_only=False),
    "a module of ours for an optimizer": _optimizer("ssl_lightning.files.write_text", text="x", path="MARKER"),
    "os.system for an optimizer": _optimizer("os.system", command="echo > MARKER"),
    "subprocess for an optimizer": _optimizer("subprocess.Popen", args="echo > MARKER", shell=True),
    "builtins.eval for an optimizer": _optimizer("builtins.eval", source=TOUCH),
    "a module of torch's dependencies": _optimizer("torch.os.system", command="echo > MARKER"),
    "subprocess by way of torch": _optimizer(
        "torch.utils.collect_env.subprocess.Popen", args="echo > MARKER", shell=True
    ),
    "a private helper of lightning": _optimizer("lightning.pytorch.utilities.seed.os.system", command="echo > MARKER"),
    "a module that has effects on import": _optimizer("marker_module.Optimizer"),
    "a module as a callback": _callback("marker_module.Callback"),
    "a callback with functions": _callback("lightning.pytorch.callbacks.LambdaCallback", on_fit_start="os.abort"),
    "a function as a callback": _callback("lightning.pytorch.utilities.seed.seed_everything", seed=1),
    "a callback that writes elsewhere": _callback(
        "lightning.pytorch.callbacks.ModelCheckpoint", dirpath="MARKER", every_n_train_steps=1, save_top_k=-1
    ),
    "an averaging function": _callback(
        "lightning.pytorch.callbacks.StochasticWeightAveraging", swa_lrs=0.1, avg_fn="os.abort"
    ),
    "a logger that writes elsewhere": _trainer(logger=_with("lightning.pytorch.loggers.CSVLogger", save_dir="MARKER")),
    "a logger in a folder above": _trainer(
        logger=_with("lightning.pytorch.loggers.CSVLogger", save_dir="runs", name="../MARKER")
    ),
    "a profiler that writes elsewhere": _trainer(
        profiler=_with("lightning.pytorch.profilers.SimpleProfiler", dirpath=".", filename="MARKER")
    ),
    "a hook of the strategy": _trainer(
        strategy=_with(
            "lightning.pytorch.strategies.DDPStrategy", ddp_comm_hook="os.abort", process_group_backend="gloo"
        )
    ),
    "a plugin": _trainer(plugins=[_with("lightning.pytorch.plugins.io.TorchCheckpointIO")]),
    "another command for a cluster": _trainer(
        plugins=[_with("lightning.pytorch.plugins.environments.SLURMEnvironment", requeue_signal="os.abort")]
    ),
    "a class nested in a place for values": {"trainer": {"max_epochs": _with("marker_module.Number")}},
    "a class in a list of numbers": {"data": {"init_args": {"mean": [_with("marker_module.Number"), 0, 0]}}},
    "a backbone from elsewhere": {
        "model": {"class_path": METHOD, "init_args": {"backbone": _with("marker_module.Backbone")}}
    },
    "a function as a method": {"model": {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b"}}},
    "weights from an address": {
        "model": _with(
            "ssl_lightning.methods.FrozenBackbone", name="hf-hub:nobody/nothing", weights="http://127.0.0.1:9/w"
        )
    },
    "a schedule that is a function": {
        "model": {
            "class_path": METHOD,
            "init_args": {"schedule": _with("torch.utils.collect_env.run", command="echo > MARKER")},
        }
    },
    "a folder above as default root": _trainer(default_root_dir="../MARKER"),
}
TEXTS = {
    "a tag that calls": "model: !!python/object/apply:os.system ['echo > MARKER']",
    "a tag that makes an object": "data: !!python/object/new:marker_module.Number {}",
    "a tag that names a module": "data: !!python/name:marker_module.Number",
    "a bomb of aliases": "\n".join(
        f"{key}: &{key} [{','.join([value] * 9)}]"
        for key, value in zip("abcdefghi", ["lol", *(f"*{key}" for key in "abcdefgh")], strict=True)
    ),
    "an anchor within itself": f"model: &m\n  class_path: {METHOD}\n  init_args: *m",
    "merge keys that multiply": "a: &a {x: 1}\nb: &b {<<: [" + ",".join(["*a"] * 2000) + "]}\nmodel: {<<: *b}",
    "deep nesting": "model: " + "[" * 5000 + "]" * 5000,
    "another config at an address": "config: http://127.0.0.1:9/config.yaml",
    "a key twice": "seed_everything: 1\nseed_everything: 2",
    "binary": "\x00\x01\x02",
    "50 MB": "trainer: {max_epochs: 1} #" + "x" * 50_000_000,
}
ADDRESSES = ("http://127.0.0.1:9/config.yaml", "file:///etc/hostname", "memory://a")
"""Configs named on the command line that are no local files."""
HIDDEN = {
    "a function": _with("torch.utils.collect_env.run", command="echo > MARKER"),
    "an optimizer that is a function": _optimizer("torch.utils.collect_env.run", command="echo > MARKER")["model"],
    "a module": _with("marker_module.Method"),
    "a logger in place of the method": _with("lightning.pytorch.loggers.CSVLogger", save_dir="MARKER"),
}
"""Descriptions in a checkpoint and in a stage file."""
CASES = (
    [("config", name) for name in (*DESCRIPTIONS, *TEXTS)]
    + [("address", name) for name in ADDRESSES]
    + [("checkpoint", name) for name in HIDDEN]
    + [("embedded checkpoint", name) for name in HIDDEN]
    + [("stage file", name) for name in HIDDEN]
)


def described(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """One command in a folder of its own, in which nothing may appear but its run and what is made of a stage file."""
    place, name = CASES[number % len(CASES)]
    folder = bench.folder / "untrusted" / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "marker_module.py").write_text(MARKER_MODULE)
    arguments = _arguments(bench, folder, place, name)
    before = set(folder.iterdir())
    environment = {"FAULTY_LOSSES": str(folder / "losses.txt")}
    done = bench.forks.command(arguments, environment, folder=folder, limit=LIMIT, watch=folder / "watched.txt")
    problems = _effects(folder, before, done)
    if not problems:
        shutil.rmtree(folder)
    return Outcome(f"{place}: {name}", f"exit {done.code}", problems)


MARKER_MODULE = """
from pathlib import Path
Path(__file__).with_name("MARKER-imported").touch()
class Number(int): ...
Optimizer = Callback = Backbone = Method = Number
"""


def _arguments(bench: Bench, folder: Path, place: str, name: str) -> list[str]:
    from .forks import ROOT

    fit = ["fit", "--config", str(ROOT / "configs" / "demo.yaml")]
    small = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]
    if place == "config":
        text = TEXTS.get(name) or json.dumps(DESCRIPTIONS[name])
        (folder / "given.yaml").write_text(text)
        return [*fit, "--config", "given.yaml", *small]
    if place == "address":
        return [*fit, "--config", name, *small]
    file = bench.forks.call(lambda: _write(folder, place, HIDDEN[name]))[0]
    if place == "checkpoint":
        return ["validate", "--config", str(ROOT / "configs" / "eval.yaml"), "--ckpt_path", file]
    return ["embed", file, "features.safetensors"] if place == "embedded checkpoint" else ["clusters", file]


def _write(folder: Path, place: str, description: dict) -> str:
    """A checkpoint or a stage file that is whole, but for its description."""
    import torch

    from ssl_lightning.checkpoints import DurableCheckpointIO
    from ssl_lightning.clustering import Clustering

    if place == "stage file":
        labels = torch.arange(1438) % 3
        clustering = Clustering(labels, torch.zeros(len(labels)), torch.zeros(3, 4), labels.bincount())
        clustering.save(folder / "stage.safetensors", {"data": "0", "data_config": json.dumps(description)})
        return "stage.safetensors"
    path = folder / "given" / "checkpoints" / "step-1.ckpt"
    path.parent.mkdir(parents=True)
    (folder / "given" / "config.yaml").write_text(json.dumps({"data": description}))
    content = {"state_dict": {}, "global_step": 1, "epoch": 0, "hyper_parameters": description}
    DurableCheckpointIO().save_checkpoint(content, path)
    return str(path.relative_to(folder))


def _effects(folder: Path, before: set[Path], done: Done) -> list[str]:
    """What a command did that it must not do."""
    expected = {*before, folder / "runs", folder / "losses.txt", folder / "watched.txt", folder / "stage"}
    new = [path.name for path in folder.iterdir() if path not in expected]
    problems = [f"made {name}" for name in new if name != "__pycache__"]
    outside = folder.parent / "MARKER"
    if outside.exists():
        shutil.rmtree(outside)
        problems.append("made MARKER in the folder above")
    watched = folder / "watched.txt"
    problems += [f"did {line}" for line in watched.read_text().splitlines()] if watched.exists() else []
    if done.is_hung:
        return [*problems, f"no end within {LIMIT:.0f} s"]
    if done.code not in (0, 2, 64, 65):
        problems.append(f"exit code {done.code}: {(done.output.strip().splitlines() or [''])[-1][:200]}")
    if "Traceback" in done.output:
        problems.append("a traceback")
    return problems


CELLS = [
    Cell(
        "untrusted",
        "configs, checkpoints and stage files that name functions, modules, places, addresses, or never end",
        f"exit 0, 2, 64 or 65 with one line within {LIMIT:.0f} s; no file outside the run, no process, no connection",
        len(CASES),
        described,
    )
]
