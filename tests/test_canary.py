"""Private and undocumented attributes of libraries that the package relies on, each with the expected behavior.

An upgrade that changes one of them fails here, with the name of the attribute, and not silently in a run.
"""

import ast
import importlib
import os
import re
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentParser
from jsonargparse import Path as ParsersPath
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from tests.methods.quiet import QUIET

PACKAGE = Path(__file__).parents[1] / "ssl_lightning"
OWN = re.compile(r"\bself\._|\bcls\._")
RELIED_ON = {
    "_actions": "argparse.ArgumentParser",
    "_apply": "nn.Module",
    "_checkpoint_connector": "pl.Trainer",
    "_cleanup": "connection of wandb to its service",
    "_compiled_call_impl": "nn.Module",
    "_exit": "os",
    "_finalizer": "connection of wandb to its service",
    "_get": "LightningCLI",
    "_linear_pointwise": "torch.ops.mkldnn",
    "_proc": "connection of wandb to its service",
    "_process": "service process of wandb",
    "_shutdown_workers": "iterator of torch.utils.data.DataLoader",
    "_update_count": "torchmetrics.Metric",
}
"""Private attributes by name, with their owner; `test_every_private_attribute_is_listed` compares with the sources."""
IMPORTED = {
    "lightning.pytorch.strategies.launchers": ["_MultiProcessingLauncher"],
    "torch.nn.modules.batchnorm": ["_BatchNorm"],
}
"""Private names that are imported."""


QUIET_WITHOUT_DEVICES = {
    key: value for key, value in QUIET.items() if key not in ("accelerator", "devices", "strategy")
}


def own_names(tree: ast.Module) -> set[str]:
    """Names that a module defines itself, as functions, classes, arguments or attributes of `self`."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = (
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    )
    fields = (
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    )
    return names | {name for name in targets if name != "_update_count"} | set(fields)


def private_attributes() -> set[str]:
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    own = set().union(*(own_names(tree) for tree in trees)) - {"_apply"}
    found = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in found if name.startswith("_") and not name.startswith("__")} - own


def test_every_private_attribute_is_listed():
    assert private_attributes() == set(RELIED_ON)


def test_every_private_import_is_listed():
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("ssl_lightning"):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                if private and node.module != "__future__":
                    found.setdefault(node.module, []).extend(private)
    assert found == IMPORTED


def test_a_module_moves_its_tensors_by_apply():
    class Moves(nn.Module):
        def _apply(self, fn, recurse=True):
            self.seen = fn(torch.zeros(2))
            return super()._apply(fn, recurse)

    assert Moves().double().seen.dtype == torch.float64


def test_extra_state_is_stored_under_its_own_suffix():
    class Extra(nn.Module):
        def get_extra_state(self):
            return {"rows": 1}

    assert list(nn.Sequential(Extra()).state_dict()) == ["0._extra_state"]


def test_a_module_without_compilation_has_no_compiled_call():
    module = nn.Linear(1, 1)
    assert module._compiled_call_impl is None
    module.compile(backend="eager")
    assert module._compiled_call_impl is not None


def test_batch_normalization_of_every_dimension_has_one_base():
    base = importlib.import_module("torch.nn.modules.batchnorm")._BatchNorm
    assert all(issubclass(kind, base) for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm))


@pytest.mark.parametrize("kind", ["module", "parameter", "buffer"])
def test_registrations_call_a_global_hook(kind):
    module = importlib.import_module("torch.nn.modules.module")
    names = []
    handle = getattr(module, f"register_module_{kind}_registration_hook")(lambda owner, name, value: names.append(name))
    try:
        nn.Sequential(nn.BatchNorm1d(2))
    finally:
        handle.remove()
    assert {"module": "0", "parameter": "weight", "buffer": "running_mean"}[kind] in names


def test_the_loader_ends_its_workers_on_request():
    iterator = iter(DataLoader(TensorDataset(torch.zeros(4)), num_workers=1, persistent_workers=True))
    next(iterator)
    (worker,) = iterator._workers
    iterator._shutdown_workers()
    assert not worker.is_alive()


def test_a_metric_warns_of_a_missing_update_unless_it_was_counted():
    metric = MeanMetric()
    metric._update_count = 1
    metric.compute()  # a warning would be an error
    assert metric._update_count == 1


def test_onednn_multiplies_adds_and_is_optional():
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    rows, others, bias = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4)
    found = torch.ops.mkldnn._linear_pointwise(rows, others, bias, "none", [], "")
    assert torch.allclose(found, rows @ others.T + bias, atol=1e-5)
    assert torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee", "bf16", "tf32")


class Counts(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_resume_goes_through_three_methods_that_an_instance_may_hide(tmp_path):
    def fit(**options):
        trainer = pl.Trainer(**QUIET | {"max_epochs": 1, "logger": False} | options)
        calls = []
        places = [
            (trainer._checkpoint_connector, "_restore_modules_and_callbacks"),
            (trainer._checkpoint_connector, "restore_training_state"),
            (trainer.fit_loop, "_load_combined_loader_states"),
        ]
        for owner, name in places:
            method = getattr(owner, name)
            setattr(owner, name, lambda *a, method=method, name=name, **k: (calls.append(name), method(*a, **k))[1])
        trainer.fit(Counts(), DataLoader(TensorDataset(torch.zeros(4, 1))), ckpt_path=path if path.exists() else None)
        return trainer, calls

    path = tmp_path / "a.ckpt"
    trainer, _ = fit()
    trainer.save_checkpoint(path)
    _, calls = fit(max_epochs=2)
    assert set(calls) == {
        "_restore_modules_and_callbacks",
        "restore_training_state",
        "_load_combined_loader_states",
    }


def test_the_launcher_of_processes_has_one_base():
    base = importlib.import_module("lightning.pytorch.strategies.launchers")._MultiProcessingLauncher
    trainer = pl.Trainer(strategy="ddp_fork", devices=2, accelerator="cpu", **QUIET_WITHOUT_DEVICES)
    assert isinstance(trainer.strategy.launcher, base)


def test_the_parser_reads_a_file_by_one_method_and_gives_its_denied_import(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("a: 3\n")
    reads = []
    original = ParsersPath.read_text
    monkeypatch.setattr(ParsersPath, "read_text", lambda path: (reads.append(str(path)), original(path))[1])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--a", type=int)
    assert parser.parse_args(["--config", str(tmp_path / "a.yaml")]).a == 3
    assert [os.path.basename(path) for path in reads] == ["a.yaml"]


def test_another_class_goes_through_one_function_of_the_parser(monkeypatch):
    typehints, changes = importlib.import_module("jsonargparse._typehints"), []

    def note(_, before, value):
        if before and "init_args" in before:
            changes.append((before["class_path"], before["init_args"].clone(), value["class_path"]))

    monkeypatch.setattr(typehints, "discard_init_args_on_class_path_change", note)
    parser = ArgumentParser()
    parser.add_subclass_arguments(nn.Module, "layer")
    parser.parse_args(["--layer=torch.nn.Dropout", "--layer.p=0.3", "--layer=torch.nn.AlphaDropout"])
    found = [(former, arguments.get("p"), present) for former, arguments, present in changes]
    assert ("torch.nn.Dropout", 0.3, "torch.nn.AlphaDropout") in found


def test_a_parser_lists_its_options():
    parser = ArgumentParser()
    parser.add_argument("--odd.name", type=int)
    assert "--odd.name" in [option for action in parser._actions for option in action.option_strings]


def test_the_bound_on_lightning_stays():
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    assert re.search(r'"lightning>=2\.6\.6,<2\.8"', text)
