"""No file runs code: it names classes alone, each of the kind that its place declares."""

import inspect
import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from ssl_lightning import load_model
from ssl_lightning.checkpoints import to_plain
from ssl_lightning.checkpoints.kinds import (
    KINDS,
    REJECTED,
    WRITES,
    library_classes,
    rejection,
    written_arguments,
)
from ssl_lightning.checkpoints.load import build_data
from ssl_lightning.checkpoints.places import check_call, class_named, signature_of
from ssl_lightning.checkpoints.plain import class_path
from ssl_lightning.data import Digits
from ssl_lightning.entry import run
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.inspect import load_run
from ssl_lightning.methods import DeepCluster
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.safe_yaml import load_yaml

HERE = Path(__file__).parent
LIGHTNING = ["callbacks", "loggers", "profilers", "strategies", "accelerators", "plugins", "plugins.environments"]
COMMAND = "touch ran"
SHELL = {"class_path": "torch.utils.collect_env.run", "init_args": {"command": COMMAND}}
PAYLOADS = {
    "a function": SHELL,
    "a function by its bare name": "torch.utils.collect_env.run",
    "source code": {"class_path": "torch._inductor.codecache.PyCodeCache.load", "init_args": {"source_code": "x"}},
    "a loader": {"class_path": "torch.load", "init_args": {"f": "ran"}},
    "a hub": {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": ".", "model": "ran", "source": "local"}},
    "a library": {"class_path": "torch.ops.load_library", "init_args": {"path": "ran"}},
    "a download": {"class_path": "torchvision.datasets.utils.download_url", "init_args": {"url": "x", "root": "ran"}},
    "a function of ours": {"class_path": "ssl_lightning.files.write_text", "init_args": {"path": "ran", "text": ""}},
    "a function behind a package of ours": {"class_path": "ssl_lightning.data.module.permutation", "init_args": {}},
    "a foreign class that launches": {
        "class_path": "torch.distributed.launcher.api.elastic_launch",
        "init_args": {"config": None, "entrypoint": "os.system"},
    },
    "an alternate constructor": {"class_path": "policy_lab.Recipe.alternate", "init_args": {"command": COMMAND}},
    "an alternate constructor of torch": {"class_path": "torch.nn.Embedding.from_pretrained", "init_args": {}},
    "a function of a plugin": {"class_path": "policy_lab.make_optimizer"},
    "a module": "torch.optim",
    "a class of another kind": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}},
    "a base class": {"class_path": "torch.optim.Optimizer", "init_args": {"defaults": {}}},
    "the standard library": {"class_path": "os.system", "init_args": {"command": COMMAND}},
    "the standard library behind a package": {"class_path": "lightning.pytorch.callbacks.timer.time.sleep"},
    "a subclass in code of torch": {"class_path": "torch.testing._internal.common_utils.TestCase"},
    "an instance": "policy_lab.AN_INSTANCE",
    "no name": {"class_path": 3},
    "a private name": {"class_path": "torch.optim.sgd._single_tensor_sgd"},
}
OPTIMIZER_PLACES = ["optimizer"]
OTHER_PLACES = ["learning_rate", "augment", "activation", "anything", "untyped", "score"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_LIGHTNING_PLUGINS", "policy_lab")
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.delenv("SSL_LIGHTNING_REMOTE", raising=False)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    return tmp_path


def fails(capsys, *arguments: str) -> str:
    """The one line of a command that ends before training."""
    try:
        code = run(["fit", *arguments, "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"])
    except SystemExit as stop:
        code = stop.code
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert code in (2, 64, 65), lines
    assert len(lines) == 1, lines
    assert {path.name for path in Path().iterdir()} <= {"runs", "given.yaml"}
    assert not list(Path().glob("runs/*/checkpoints/*"))
    return lines[0]


def config(**model) -> list[str]:
    described = {
        "model": {"class_path": "policy_lab.Recipe", "init_args": model},
        "data": {"class_path": "ssl_lightning.data.Digits"},
    }
    Path("given.yaml").write_text(yaml.safe_dump(described))
    return ["--config", "given.yaml", "--trainer.max_steps", "1"]


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
@pytest.mark.parametrize("place", ["optimizer", "augment", "anything"])
def test_no_configuration_names_anything_but_a_class_that_fits(payload, place, capsys):
    if place == "augment" and payload == PAYLOADS["a class of another kind"]:
        payload = {"class_path": "torch.optim.SGD"}
    if place == "anything" and isinstance(payload, str):
        pytest.skip("a plain string, which this place takes and nothing is made of")
    line = fails(capsys, *config(**{place: payload}))
    assert "error: " in line


@pytest.mark.parametrize("place", OTHER_PLACES)
def test_no_place_of_another_type_takes_a_function(place, capsys):
    fails(capsys, *config(**{place: SHELL}))


@pytest.mark.parametrize("given", [[SHELL], {"a": {"b": SHELL}}, [[{"class_path": "torch.nn.ReLU"}]]])
def test_no_table_or_list_of_an_untyped_place_hides_a_class(given, capsys):
    fails(capsys, *config(anything=given))


@pytest.mark.parametrize(
    "trainer",
    [
        {"callbacks": {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"setup": SHELL}}},
        {"callbacks": [{"class_path": "LambdaCallback", "init_args": {"on_fit_start": "os.getcwd"}}]},
        {"callbacks": {"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1, "avg_fn": SHELL}}},
        {"strategy": {"class_path": "DDPStrategy", "init_args": {"ddp_comm_hook": "torch.hub.list"}}},
        {"strategy": {"class_path": "DDPStrategy", "init_args": {"ddp_comm_hook": "policy_lab.make_optimizer"}}},
        {"strategy": {"class_path": "FSDPStrategy", "init_args": {"auto_wrap_policy": SHELL}}},
        {"strategy": {"class_path": "FSDPStrategy", "dict_kwargs": {"auto_wrap_policy": SHELL}}},
        {"profiler": {"class_path": "PyTorchProfiler", "dict_kwargs": {"on_trace_ready": SHELL}}},
        {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger.after_save_checkpoint"}},
        {"plugins": [SHELL]},
        {"accelerator": SHELL},
        {"callbacks": [{"class_path": "ssl_lightning.callbacks.ProbeFeatures", "init_args": {"probes": [SHELL]}}]},
    ],
)
def test_no_part_of_the_trainer_names_a_function(trainer, capsys):
    Path("given.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    fails(capsys, "--config", str(HERE.parents[1] / "configs" / "demo.yaml"), "--config", "given.yaml")


@pytest.mark.parametrize("option", ["--model.optimizer", "--trainer.callbacks+", "--model"])
def test_options_of_the_command_line_hold_to_the_same_policy(option, capsys):
    demo = str(HERE.parents[1] / "configs" / "demo.yaml")
    fails(capsys, "--config", demo, option, json.dumps(SHELL))
    fails(capsys, "--config", demo, option, "torch.utils.collect_env.run")


def test_nothing_is_imported_for_a_name_that_is_rejected(capsys):
    fails(capsys, *config(optimizer={"class_path": "antigravity.fly"}))
    fails(capsys, *config(anything={"class_path": "torch.utils.tensorboard.SummaryWriter"}))
    assert "antigravity" not in sys.modules
    assert "torch.utils.tensorboard" not in sys.modules


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.yaml", "file://{}/other.yaml", "memory://a.yaml"])
@pytest.mark.parametrize("option", ["--config", "--model", "--data", "--model.optimizer"])
def test_addresses_are_no_configurations(address, option, capsys, tmp_path):
    (tmp_path / "other.yaml").write_text("class_path: policy_lab.Recipe\n")
    demo = ["--config", str(HERE.parents[1] / "configs" / "demo.yaml")]
    try:
        code = run(["fit", *demo, option, address.format(tmp_path), "--trainer.max_steps", "1"])
    except SystemExit as stop:
        code = stop.code
    assert code in (2, 64, 65), capsys.readouterr().err
    assert not Path("runs").exists()


def test_classes_that_fit_work_as_arguments_of_a_plugins_method(capsys):
    scheduler = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 5}}
    given = config(
        optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
        learning_rate=scheduler,
        augment={"class_path": "torchvision.transforms.v2.RandomErasing", "init_args": {"p": 1.0}},
        activation="torch.nn.GELU",
        layers_of=[
            {"class_path": "torch.nn.GELU"},
            {"class_path": "torch.nn.Linear", "init_args": LINEAR},
            {"class_path": "torch.nn.TransformerEncoderLayer", "init_args": {"d_model": 8, "nhead": 2}},
        ],
        anything={"a": [1, "two", None]},
        options={"depth": 3},
    )
    callbacks = [
        {
            "class_path": "ssl_lightning.callbacks.ProbeFeatures",
            "init_args": {"probes": [{"class_path": "policy_lab.Mean"}]},
        }
    ]
    table = yaml.safe_load(Path("given.yaml").read_text()) | {"trainer": {"callbacks": callbacks}}
    table["data"]["class_path"] = "policy_lab.FewDigits"
    Path("given.yaml").write_text(yaml.safe_dump(table))
    small = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--data.batch_size", "64"]
    assert run(["fit", *given, *small, "--run.name", "own"]) == 0, capsys.readouterr().err
    model = load_model("runs/own/checkpoints/last.ckpt")
    assert (type(model).__name__, model.anything, model.given) == ("Recipe", {"a": [1, "two", None]}, {"depth": 3})
    assert type(load_run("runs/own").data).__name__ == "FewDigits"


LINEAR = {"in_features": 2, "out_features": 2}


# checkpoints and metadata


def checkpoint(path: Path, **changes) -> Path:
    """A checkpoint of tensors and strings alone, as a stranger may write one."""
    model = DeepCluster(num_clusters=4, backbone=ResNet18(width=8), preprocessing=Preprocessing(16))
    described = {
        "class_path": "ssl_lightning.methods.deepcluster.DeepCluster",
        "init_args": to_plain(model.constructor_arguments),
    }
    described["init_args"] |= changes.pop("init_args", {})
    saved = {"state_dict": model.state_dict(), "hyper_parameters": described | changes, "global_step": 1}
    torch.save(saved, path)
    return path


def test_the_same_checkpoint_without_a_payload_loads(tmp_path):
    assert load_model(checkpoint(tmp_path / "good.ckpt")).num_clusters == 4


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
@pytest.mark.parametrize("place", ["optimizer", "backbone", "class_path"])
def test_no_checkpoint_names_anything_but_a_class_that_fits(payload, place, tmp_path):
    if place == "class_path":
        change = payload if isinstance(payload, dict) else {"class_path": payload}
        path = checkpoint(tmp_path / "bad.ckpt", **change)
    else:
        path = checkpoint(tmp_path / "bad.ckpt", init_args={place: payload})
    with pytest.raises(DataError, match="not admitted or does not fit"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


def test_a_description_that_contains_itself_or_multiplies_is_rejected(tmp_path):
    cycle: list = []
    cycle.append(cycle)
    many: list = ["x"]
    for _ in range(40):
        many = [many, many, many, many]
    deep: list = []
    for _ in range(200):
        deep = [deep]
    for odd in (cycle, many, deep, torch.zeros(3)):
        with pytest.raises(DataError):
            load_model(checkpoint(tmp_path / "odd.ckpt", init_args={"optimizer": odd}))


@pytest.mark.parametrize("described", [SHELL, {"class_path": "policy_lab.Recipe"}, "os.system", 3, None, ["x"], {}])
def test_no_metadata_describes_anything_but_data(described, tmp_path):
    with pytest.raises(DataError):
        build_data(described, "edge.safetensors")
    assert not (tmp_path / "ran").exists()


def test_an_address_in_a_description_is_followed_only_where_the_user_names_it_too(monkeypatch):
    described = {"class_path": "ssl_lightning.data.UncuratedImages", "init_args": {"path": "s3://bucket/pool.tar"}}
    with pytest.raises(DataError, match=r"the address 's3://bucket/pool\.tar'"):
        build_data(described, "edge.safetensors")
    monkeypatch.setenv("SSL_LIGHTNING_REMOTE", "gs://x, s3://bucket/")
    assert build_data(described, "edge.safetensors").path == "s3://bucket/pool.tar"
    monkeypatch.delenv("SSL_LIGHTNING_REMOTE")
    monkeypatch.setattr(sys, "argv", ["ssl-lightning", "clusters", "--data=s3://bucket/pool.tar"])
    assert build_data(described, "edge.safetensors").path == "s3://bucket/pool.tar"


def test_loading_a_checkpoint_takes_its_weights_and_neither_downloads_nor_reads_others(tmp_path, monkeypatch):
    from ssl_lightning.methods import FrozenBackbone, frozen_backbone

    model = FrozenBackbone("timm:test_resnet", weights="published", preprocessing=Preprocessing(32))
    described = {
        "class_path": "ssl_lightning.methods.frozen_backbone.FrozenBackbone",
        "init_args": to_plain(model.constructor_arguments),
    }
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": described}, tmp_path / "frozen.ckpt")
    monkeypatch.setattr(frozen_backbone, "_published", lambda name: pytest.fail("weights are downloaded"))
    validate = ["validate", "--config", str(HERE.parents[1] / "configs" / "eval.yaml"), "--ckpt_path", "frozen.ckpt"]
    small = [
        *("--data", "Digits"),
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.accelerator",
        "cpu",
        "--trainer.limit_val_batches",
        "2",
    ]
    assert run([*validate, *small]) == 0


# what files make a run write


@pytest.mark.parametrize(
    ("trainer", "inside"),
    [
        ({"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "tables", "name": "x"}}}, "tables/x"),
        ({"profiler": {"class_path": "SimpleProfiler", "init_args": {"dirpath": "times", "filename": "t"}}}, "times"),
    ],
)
def test_relative_paths_of_a_file_are_taken_from_the_folder_of_the_run(trainer, inside, capsys):
    assert train(trainer) == 0, capsys.readouterr().err
    assert (Path("runs/own") / inside).exists()
    assert {path.name for path in Path().iterdir()} == {"runs", "given.yaml"}


@pytest.mark.parametrize("path", ["/tmp/elsewhere", "../elsewhere", "a/../../b", "~/x", "$HOME/x", "s3://b/x", "a::b"])
@pytest.mark.parametrize("argument", ["save_dir", "name", "version"])
def test_paths_of_a_file_that_leave_the_folder_of_the_run_are_rejected(path, argument, capsys):
    arguments = {"save_dir": "tables"} | {argument: path}
    assert train({"logger": {"class_path": "CSVLogger", "init_args": arguments}}) == 64
    assert f"trainer.logger.{argument}" in capsys.readouterr().err


def test_the_command_line_may_give_any_path(tmp_path, capsys):
    elsewhere = str(tmp_path / "elsewhere")
    option = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", elsewhere]
    assert train({}, *option) == 0, capsys.readouterr().err
    assert Path(elsewhere).is_dir()
    table = json.dumps({"class_path": "CSVLogger", "init_args": {"save_dir": elsewhere + "2"}})
    assert train({}, f"--trainer.logger={table}", "--run.name", "again") == 0, capsys.readouterr().err
    assert Path(elsewhere + "2").is_dir()


def test_an_empty_path_of_a_file_is_the_folder_of_the_run(capsys):
    assert train({"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "", "name": "x"}}}) == 0
    assert (Path("runs/own/x")).is_dir()
    assert {path.name for path in Path().iterdir()} == {"runs", "given.yaml"}


def test_a_path_that_is_given_for_another_option_is_not_one_to_write_to(tmp_path, capsys):
    elsewhere = str(tmp_path / "elsewhere")
    csv = {"class_path": "CSVLogger", "init_args": {"save_dir": elsewhere, "name": "x"}}
    assert train({"logger": csv}, "--run.dir", elsewhere) == 64
    assert "trainer.logger.save_dir" in capsys.readouterr().err
    table = {"class_path": "ssl_lightning.runs.MetricsTable", "init_args": {"path": str(tmp_path / "a.ckpt")}}
    assert train({"logger": table}, "--run.start_from", str(tmp_path / "a.ckpt")) == 64


def train(trainer: dict, *options: str) -> int:
    Path("given.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    demo = str(HERE.parents[1] / "configs" / "demo.yaml")
    small = [
        "--model.backbone.width",
        "4",
        "--model.num_clusters",
        "8",
        "--trainer.max_steps",
        "1",
        "--run.name",
        "own",
    ]
    quiet = [
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.accelerator",
        "cpu",
        "--trainer.limit_val_batches",
        "1",
    ]
    try:
        return run(["fit", "--config", demo, "--config", "given.yaml", *small, *quiet, *options])
    except SystemExit as stop:
        return int(str(stop.code))


# canaries: what the tables say of libraries that change


@pytest.mark.parametrize("module", [f"lightning.pytorch.{name}" for name in LIGHTNING])
def test_every_public_class_of_lightning_is_admitted_or_rejected_with_a_reason(module):
    holder = import_module(module)
    classes = [name for name in getattr(holder, "__all__", dir(holder)) if inspect.isclass(getattr(holder, name))]
    public = [name for name in classes if getattr(holder, name).__module__.startswith("lightning.")]
    assert len(public) > 4
    for name in public:
        known = f"{module}.{name}" in library_classes()
        reason = rejection(f"{module}.{name}")
        assert known != (reason is not None), name
    assert set(REJECTED[module]) <= set(public)


def test_an_argument_that_looks_like_a_path_is_listed():
    ending = ("dir", "path", "file", "folder", "filename")
    for cls in {*library_classes().values()}:
        if not cls.__module__.startswith("lightning."):
            continue
        hints, defaults = signature_of(cls)
        found = {name for name in hints if name.endswith(ending)}
        assert found <= {*written_arguments(cls)}, cls
        assert all(defaults.get(name) in (None, "lightning_logs", "") for name in written_arguments(cls)), cls
    for name, arguments in WRITES.items():
        module, _, attribute = name.rpartition(".")
        assert set(arguments) <= set(signature_of(getattr(import_module(module), attribute))[0]), name


def test_classes_of_ours_that_write_are_listed():
    ending = ("dir", "path", "file", "folder")
    for package in ("callbacks", "runs", "optim"):
        holder = import_module(f"ssl_lightning.{package}")
        for cls in filter(inspect.isclass, vars(holder).values()):
            if any(kind.admits(cls) for kind in KINDS) and rejection(class_path(cls)) is None:
                names = {name for name in signature_of(cls)[0] if name.endswith(ending)}
                assert names <= {*written_arguments(cls)}, cls


def test_every_kind_has_its_base_and_every_name_leads_to_a_strict_subclass():
    for kind in KINDS:
        assert inspect.isclass(kind.cls), kind
    known = library_classes()
    assert len(known) > 250
    for name in ("torch.optim.SGD", "timm.optim.Lars", "torch.nn.GELU", "torchvision.transforms.v2.RandomErasing"):
        assert name in known
    for name, cls in known.items():
        assert inspect.isclass(cls), name
        assert any(kind.admits(cls) for kind in KINDS), name


def test_what_a_configuration_is_dumped_as_is_an_admitted_name():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--m", type=torch.nn.Module)
    parsed = parser.parse_object({"m": {"class_path": "torch.nn.modules.activation.GELU"}})
    assert class_named(parsed.m.class_path, "m") is torch.nn.GELU


def test_a_default_that_is_an_object_stays(tmp_path):
    hints, defaults = signature_of(DeepCluster)
    assert "optimizer" in hints
    check_call(DeepCluster, dict(defaults))
    with pytest.raises(UsageError):
        check_call(DeepCluster, {"backbone": os.system})


def test_data_described_by_a_real_run_are_built(tmp_path):
    built = build_data({"class_path": "ssl_lightning.data.Digits", "init_args": {"batch_size": 8}}, "x")
    assert isinstance(built, Digits)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("given.yaml", "config: given.yaml"),
        ("given.yaml", "model: given.yaml"),
        ("given.yaml", "model: {class_path: policy_lab.Recipe, init_args: {augment: given.yaml}}"),
        ("given.yaml", "model: '-'"),
        ("given.yaml", "model: file:///etc/hostname"),
        ("given.yaml", "config: http://127.0.0.1:9/a.yaml"),
        ("given.yaml", "model: http://127.0.0.1:9/a.yaml"),
        ("given.yaml", "model: {class_path: policy_lab.Recipe, init_args: {optimizer: 'http://127.0.0.1:9/a.yaml'}}"),
    ],
)
def test_a_configuration_that_includes_itself_or_what_is_no_local_file_ends_in_one_line(name, text, capsys):
    Path(name).write_text(text)
    fails(capsys, "--config", str(HERE.parents[1] / "configs" / "data" / "digits.yaml"), "--config", name)


def test_a_description_of_more_memory_than_the_file_holds_is_rejected(tmp_path):
    with pytest.raises(DataError, match="that do not fit its description"):
        load_model(checkpoint(tmp_path / "large.ckpt", init_args={"num_clusters": 3_000_000_000}))


@pytest.mark.parametrize("arguments", [{"num_heads": 10**8}, {"hidden": [1] * 90_000}])
def test_a_description_of_more_layers_than_the_file_holds_is_rejected(arguments, tmp_path):
    described = {"class_path": "ssl_lightning.methods.DeepClusterV2", "init_args": {"num_clusters": 4} | arguments}
    torch.save({"state_dict": {}, "hyper_parameters": described}, tmp_path / "many.ckpt")
    with pytest.raises(DataError, match="a network of more than 10,000 modules"):
        load_model(tmp_path / "many.ckpt")


def test_a_file_that_a_configuration_names_is_read_within_bounds(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: to read it would take for ever
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(11_000_000)
    demo = str(HERE.parents[1] / "configs" / "demo.yaml")
    for name in ("pipe", "large.yaml", "/proc/self/environ"):
        Path("given.yaml").write_text(f"model: {name}\n")
        with pytest.raises(SystemExit):
            run(["fit", "--config", demo, "--config", "given.yaml"])
        lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(lines) == 1, lines
    assert run(["fit", "--config", demo, "--config", "large.yaml"]) == 65
    assert "larger than 10,000,000 bytes" in capsys.readouterr().err
    described = {"class_path": "policy_lab.FewDigits", "init_args": {"limits": str(tmp_path / "pipe")}}
    with pytest.raises(DataError):
        build_data(described, "edge.safetensors")


@pytest.mark.parametrize(
    "value",
    [
        "!!int '" + ":".join(["1"] * 200_000) + "'",  # of base 60: time that grows with the square
        "!!float '" + ":".join(["1"] * 200_000) + "'",
        "!!int '0x" + "f" * 20_000 + "'",  # which Python does not print
        "!!timestamp 'no date'",
        "!!bool 'no truth'",
    ],
)
def test_a_value_that_takes_long_or_is_not_what_its_tag_reports_ends_in_one_line(value, capsys):
    with pytest.raises(yaml.YAMLError):
        load_yaml(f"a: {value}")
    Path("given.yaml").write_text(f"trainer: {{max_epochs: {value}}}\n")
    fails(capsys, "--config", str(HERE.parents[1] / "configs" / "demo.yaml"), "--config", "given.yaml")


def test_a_method_that_passes_arguments_on_is_described_by_the_names_of_its_base(capsys):
    small = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--data.batch_size", "64"]
    given = config(depth=3, anything=[1], augment={"class_path": "torch.nn.Identity"})
    Path("given.yaml").write_text(Path("given.yaml").read_text().replace("policy_lab.Recipe", "policy_lab.Deeper"))
    assert run(["fit", *given, *small, "--run.name", "own"]) == 0, capsys.readouterr().err
    model = load_model("runs/own/checkpoints/last.ckpt")
    assert (type(model).__name__, model.depth, model.anything) == ("Deeper", 3, [1])


def test_standard_input_is_read_where_the_command_line_has_a_dash(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("trainer: {max_steps: 77}"))
    demo = str(HERE.parents[1] / "configs" / "demo.yaml")
    with pytest.raises(SystemExit):
        run(["fit", "--config", demo, "--config", "-", "--print_config"])
    assert "max_steps: 77" in capsys.readouterr().out


def test_a_pipe_that_the_command_line_names_is_read(tmp_path, monkeypatch):
    from ssl_lightning.safe_yaml import _read_bounded

    reading, writing = os.pipe()
    os.write(writing, b"a: 1")
    os.close(writing)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning", "fit", f"--config=/dev/fd/{reading}"])
    assert _read_bounded(Path(f"/dev/fd/{reading}")) == "a: 1"
    os.close(reading)


def test_what_is_said_of_a_file_moves_no_cursor(capsys):
    fails(capsys, "--config", "\x1b[2J\x07given.yaml")
    Path("given.yaml").write_text("model: {class_path: policy_lab.Recipe}\ndata: {class_path: Digits}\n")
    line = fails(capsys, "--config", "given.yaml", "--run.name", "\x1b[31mred\n")
    assert "\x1b" not in line


def test_a_profiler_that_is_rejected_is_so_by_its_short_word_too(capsys):
    assert train({"profiler": "pytorch"}) == 64
    assert "SimpleProfiler" in capsys.readouterr().err


def test_what_stands_under_the_names_of_the_parsers_own_notes_is_checked(capsys):
    for name in ("__path__", "__orig__"):
        fails(capsys, *config(options={name: SHELL}))


def test_one_name_that_only_type_checkers_import_hides_no_other_type():
    def built(backbone: "Backbone", odd: "NowhereDefined" = None, probes: "list[Probe]" = ()) -> None: ...

    from ssl_lightning.evaluation.probe import Probe
    from ssl_lightning.models import Backbone

    built.__globals__.update(Backbone=Backbone, Probe=Probe)
    described = {"class_path": "ssl_lightning.models.ResNet18", "init_args": {"width": 4}}
    probes = [{"class_path": "ssl_lightning.evaluation.KNN", "init_args": {}}]
    assert [one.cls.__name__ for one in check_call(built, {"backbone": described, "probes": probes})] == [
        "ResNet18",
        "KNN",
    ]
    with pytest.raises(UsageError, match="resolved at run time"):
        check_call(built, {"odd": described})


def test_a_class_of_one_plugin_is_admitted_under_the_name_that_another_gives_it(tmp_path, monkeypatch):
    (tmp_path / "handing_on.py").write_text("from policy_lab import Halves\nfrom os import system\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SSL_LIGHTNING_PLUGINS", "policy_lab,handing_on")
    assert class_named("handing_on.Halves", "x").__name__ == "Halves"
    with pytest.raises(UsageError):
        class_named("handing_on.system", "x")


def test_more_synthetic_images_than_memory_are_rejected_before_they_are_rendered():
    huge = {"class_path": "ssl_lightning.data.SyntheticImages", "init_args": {"samples": 10**11}}
    with pytest.raises(UsageError, match="synthetic images"):
        build_data(huge, "edge.safetensors").setup("predict")


@pytest.mark.parametrize(
    "name",
    [
        *("runs.MetricsTable", "runs.metrics.MetricsTable", "callbacks.write_report.WriteReport"),
        *("callbacks.sample_features.SampleFeatures", "callbacks.SampleFeatures"),
    ],
)
def test_what_every_run_writes_by_itself_is_named_by_no_file(name, capsys):
    """A second table of metrics could be written over a checkpoint of the run."""
    place, argument = ("logger", "path") if "Metrics" in name else ("callbacks+", "folder")
    described = {"class_path": f"ssl_lightning.{name}", "init_args": {argument: "checkpoints/last.ckpt"}}
    assert train({place: described}) == 64
    assert "every run has one of its own" in capsys.readouterr().err
