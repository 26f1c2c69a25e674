"""Configurations by name: a file wins, folders never match, an unknown name lists close ones; the wheel carries all."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ssl_lightning.cli.config_names import config_names, configs_folder, find_config
from ssl_lightning.entry import run
from ssl_lightning.errors import UsageError

ROOT = Path(__file__).parents[2]
TINY = [
    *("--model.num_prototypes", "16", "--model.hidden", "[32]", "--model.projection", "16"),
    *(
        "--model.backbone.width",
        "8",
        "--data.batch_size",
        "16",
        "--data.samples",
        "64",
        "--data.reference_images",
        "16",
    ),
    *("--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"),
    *("--model.queue_length", "0", "--trainer.precision", "32"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    return tmp_path


def test_every_file_in_the_folder_of_the_checkout_has_a_name():
    assert configs_folder() == ROOT / "configs"
    assert {"swav", "data/cifar10", "clusterfit/1_pretrain", "scale/cpu"} <= set(config_names())
    assert len(config_names()) == len(list((ROOT / "configs").rglob("*.yaml")))


@pytest.mark.parametrize("name", ["swav", "data/cifar10", "clusterfit/1_pretrain", "scale/cpu"])
def test_a_name_is_a_packaged_file_with_or_without_its_suffix(name):
    assert find_config(name) == find_config(f"{name}.yaml") == ROOT / "configs" / f"{name}.yaml"


def test_an_existing_file_is_that_file_and_a_folder_never_matches(folder):
    (folder / "swav").mkdir()
    assert find_config("swav") == ROOT / "configs" / "swav.yaml"
    (folder / "simclr").write_text("trainer: {max_steps: 3}\n")
    assert find_config("simclr") == Path("simclr")
    for name in ("data", str(folder), "../configs/swav", str(ROOT / "configs" / "swav")):
        with pytest.raises(UsageError, match="found no configuration"):
            find_config(name)


@pytest.mark.parametrize(
    ("name", "close"),
    [("swv", "swav"), ("cifar10", "data/cifar10"), ("configs/swav.yaml", "swav"), ("deep_cluster", "deepcluster")],
)
def test_an_unknown_name_is_one_line_with_close_names(name, close, capsys):
    assert run(["fit", "--config", name]) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ssl-lightning: error: found no configuration {name}; expected")
    assert close in line.partition("such as ")[2].split(", ")


@pytest.mark.parametrize("form", ["--config swav --config data/synthetic", "--config=swav -c data/synthetic"])
def test_names_are_configurations_of_a_run_and_their_paths_are_logged(form, capsys, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(SystemExit):
        run(["fit", *form.split(), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"] == "ssl_lightning.methods.SwAV"
    assert printed["data"]["class_path"] == "ssl_lightning.data.SyntheticImages"
    assert f"--config swav: {ROOT / 'configs' / 'swav.yaml'}" in caplog.messages


def test_a_run_by_names_has_the_name_that_it_has_by_paths(folder):
    names = ["--config", "swav", "--config", "data/synthetic", "--config", "scale/cpu"]
    assert run(["fit", *names, *TINY]) == 0
    assert [path.name for path in (folder / "runs").iterdir()] == ["swav-synthetic-s0"]


def test_a_packaged_configuration_is_printed_as_it_is_and_all_are_listed(capsys):
    assert run(["config", "clusterfit/1_pretrain"]) == 0
    assert capsys.readouterr().out == (ROOT / "configs" / "clusterfit" / "1_pretrain.yaml").read_text()
    assert run(["config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == config_names()
    assert next(line for line in lines if line.startswith("swav ")).partition("  ")[2].strip().startswith("SwAV (Caron")
    assert run(["config", "swv"]) == 64


def environment(path: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}


def command(path: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the package in a folder, run elsewhere."""
    line = [sys.executable, "-m", "ssl_lightning", *arguments]
    return subprocess.run(line, cwd=folder, env=environment(path), capture_output=True, text=True, check=False)


def test_a_config_that_is_edited_in_a_checkout_is_the_one_that_is_read(tmp_path):
    checkout = tmp_path / "checkout"
    for name in ("ssl_lightning", "configs"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    edited = checkout / "configs" / "swav.yaml"
    edited.write_text(edited.read_text() + "\nseed_everything: 1234\n")
    done = command(checkout, tmp_path, "fit", "--config", "swav", "--print_config")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["seed_everything"] == 1234
    assert str(edited) in done.stderr


@pytest.mark.slow
def test_a_wheel_carries_the_configurations_and_trains_from_an_empty_folder(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, "--quiet", "--disable-pip-version-check"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked, empty = tmp_path / "unpacked", tmp_path / "empty"
    shutil.unpack_archive(wheel, unpacked, "zip")
    empty.mkdir()
    assert (unpacked / "ssl_lightning" / "py.typed").is_file()
    done = command(unpacked, empty, "--help")
    assert done.returncode == 0, done.stderr
    done = command(unpacked, empty, "config", "swav")
    assert done.stdout == (ROOT / "configs" / "swav.yaml").read_text()
    names = ["--config", "swav", "--config", "data/synthetic", "--config", "scale/cpu"]
    done = command(unpacked, empty, "fit", *names, *TINY)
    assert done.returncode == 0, done.stderr
    assert str(unpacked / "ssl_lightning" / "configs" / "swav.yaml") in done.stderr
    assert (empty / "runs" / "swav-synthetic-s0" / "done.json").is_file()
