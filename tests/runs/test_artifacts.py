"""`wandb:...` where a path is expected: fetched once, one file, or one line that names the problem."""

import sys
from pathlib import Path

import pytest
from jsonargparse import Namespace

from ssl_lightning.entry import run
from ssl_lightning.errors import UsageError
from ssl_lightning.runs.artifacts import fetch, fetch_all, references

ROOT = Path(__file__).parents[2]


class Artifact:
    """The used part of wandb's interface of an artifact."""

    version = "v3"

    def __init__(self, files):
        self.files, self.downloads = files, 0

    def download(self, root):
        self.downloads += 1
        Path(root).mkdir(parents=True)
        for name in self.files:
            (Path(root) / name).write_text(name)
        return root


@pytest.fixture
def served(monkeypatch):
    """Artifacts by name; no network is used."""
    artifacts = {}

    class Api:
        def __init__(self, timeout):
            assert timeout <= 30

        def artifact(self, name):
            if name not in artifacts:
                raise ValueError(f"artifact {name} not found\nin many lines")
            return artifacts[name]

    monkeypatch.setattr("wandb.Api", Api)
    return artifacts


def test_a_checkpoint_is_fetched_once_with_its_sidecar(served, tmp_path):
    artifact = served["me/ssl/checkpoint-x:last"] = Artifact(["step-9.ckpt", "step-9.json"])
    for _ in range(2):
        path = fetch("wandb:me/ssl/checkpoint-x:last", tmp_path)
        assert (path.name, path.read_text()) == ("step-9.ckpt", "step-9.ckpt")
        assert path.with_suffix(".json").is_file()
    assert artifact.downloads == 1
    artifact.version = "v4"
    assert fetch("wandb:me/ssl/checkpoint-x:last", tmp_path) != path
    assert not list(tmp_path.glob("*tmp*"))


def test_every_path_of_a_configuration_may_be_one(served, tmp_path):
    served["ssl/edge:v0"] = Artifact(["edge.safetensors", "edge.parquet"])
    reference = "wandb:ssl/edge:v0/edge.safetensors"
    config = Namespace(model=Namespace(init_args={"clusters": reference, "k": 3}), paths=[reference, "x", None])
    assert references(config) == ["ssl/edge:v0"]
    fetched = fetch_all(config, tmp_path)
    assert Path(fetched.model.init_args["clusters"]).read_text() == "edge.safetensors"
    assert fetched.model.init_args["k"] == 3
    assert fetched.paths[1:] == ["x", None]
    assert fetched.paths[0] == fetched.model.init_args["clusters"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("wandb:nothing", "found wandb:nothing; expected wandb:"),
        ("wandb:ssl/edge:v0\n", "; expected wandb:"),
        ("wandb:ssl/../../x:v0", r"; expected wandb:"),
        ("wandb:ssl/absent:v0", r"found no wandb:ssl/absent:v0 \(artifact ssl/absent:v0 not found\); expected"),
        ("wandb:ssl/edge:v0", "found edge.parquet, edge.safetensors in wandb:ssl/edge:v0; expected"),
        ("wandb:ssl/edge:v0/../../secret", "found edge.parquet, edge.safetensors in"),
    ],
)
def test_what_cannot_be_had_is_one_line(reference, message, served, tmp_path):
    served["ssl/edge:v0"] = Artifact(["edge.safetensors", "edge.parquet"])
    with pytest.raises(UsageError, match=message) as error:
        fetch(reference, tmp_path)
    assert "\n" not in str(error.value)


def test_the_command_line_resolves_them_once(served, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    served["ssl/checkpoint-x:last"] = Artifact(["step-9.ckpt"])
    evaluate = ["validate", "--config", "configs/eval.yaml", "--run.dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    assert run([*evaluate, "--ckpt_path", "wandb:ssl/checkpoint-x:last"]) == 65
    line = capsys.readouterr().err
    assert f"{tmp_path}/.artifacts/ssl-checkpoint-x-v3/step-9.ckpt, which does not read as a checkpoint" in line
    assert run([*evaluate, "--ckpt_path", "wandb:ssl/absent:v1"]) == 64
    assert "found no wandb:ssl/absent:v1" in capsys.readouterr().err
