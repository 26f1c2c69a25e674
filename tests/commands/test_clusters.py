"""embed, choose-k, clusters and the stages of ClusterFit, as a user runs them."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from ssl_lightning.clustering import Clustering
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.commands import choose_k
from ssl_lightning.commands.embed import device_named
from ssl_lightning.entry import run
from ssl_lightning.errors import UsageError
from ssl_lightning.methods import ClusterFit

ROOT = Path(__file__).parents[2]
CLUSTERFIT = ROOT / "configs" / "clusterfit"
TINY = [
    *("--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8"),
    # 1 would be read as 1.0, all of them
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "2"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A pretrained network, its clusters, and a network fitted to them."""
    here = tmp_path_factory.mktemp("stages")
    before, argv = Path.cwd(), sys.argv
    os.chdir(ROOT)
    sys.argv = ["ssl-lightning"]
    runs = ["--run.dir", str(here), "--trainer.accelerator", "cpu"]
    try:
        first = ["fit", "--config", "configs/clusterfit/1_pretrain.yaml", *TINY, *runs, "--run.name", "pretrain"]
        assert run(first) == 0
        checkpoint = str(here / "pretrain" / "checkpoints" / "last.ckpt")
        second = ["predict", "--config", "configs/clusterfit/2_cluster.yaml", "--ckpt_path", checkpoint, *runs]
        second += ["--trainer.callbacks.path", str(here / "edge"), "--trainer.callbacks.num_clusters", "9"]
        assert run([*second, "--run.name", "cluster"]) == 0
        third = ["fit", "--config", "configs/clusterfit/3_fit.yaml", *TINY, *runs, "--run.name", "fit"]
        third += ["--model.clusters", str(here / "edge.safetensors"), "--model.num_clusters", "9"]
        assert run(third) == 0
    finally:
        os.chdir(before)
        sys.argv = argv
    return here, third


def test_the_stages_of_clusterfit_hand_files_to_each_other(stages):
    here, _ = stages
    clustering, metadata = Clustering.load(here / "edge.safetensors")
    assert int(clustering.sizes.sum()) == len(clustering.labels) == 1438
    assert len(metadata["checkpoint"]) == 64
    table = pd.read_parquet(here / "edge.parquet")
    assert list(table.columns) == ["row", "sample_id", "path", "cluster", "distance"]
    assert table["cluster"].tolist() == clustering.labels.tolist()
    numbers = pd.read_csv(here / "cluster" / "metrics.csv").iloc[-1]
    assert numbers["cluster/nmi_chance"] < numbers["cluster/nmi_labels"]
    assert (here / "fit" / "done.json").is_file()
    page = (here / "fit" / "report" / "index.html").read_text()
    assert (here / "fit" / "report" / "sizes-0.png").is_file()
    assert "sizes-0.png" in page
    assert "nmi_chance" in page


def test_clusters_that_were_made_again_are_noticed_by_the_run_that_used_them(stages, capsys):
    here, third = stages
    edge = here / "edge.safetensors"
    content = edge.read_bytes()
    clustering, metadata = Clustering.load(edge)
    clustering.save(edge, metadata | {"checkpoint": "another"})
    assert run(third) == 64
    assert "clusters_sha256" in capsys.readouterr().err
    edge.write_bytes(content)
    assert run(third) == 0
    edge.rename(here / "away")
    assert run(third) == 64
    assert f"found no --model.clusters {edge}" in capsys.readouterr().err
    (here / "away").rename(edge)


def test_the_control_arm_learns_what_the_pretrained_network_reports(stages, tmp_path):
    here, _ = stages
    command = ["fit", "--config", "configs/clusterfit/3_distill.yaml", *TINY, "--run.dir", str(tmp_path)]
    command += ["--model.teacher", str(here / "pretrain" / "checkpoints" / "last.ckpt"), "--run.name", "distill"]
    assert run(command) == 0
    assert (tmp_path / "distill" / "done.json").is_file()


def test_the_control_arm_differs_from_the_third_stage_in_method_and_teacher_alone():
    fitted, distilled = (yaml.safe_load((CLUSTERFIT / f"{name}.yaml").read_text()) for name in ("3_fit", "3_distill"))
    ours, theirs = fitted["model"].pop("init_args"), distilled["model"].pop("init_args")
    assert theirs.pop("decay_all") is inspect.signature(ClusterFit).parameters["decay_all"].default
    own = ("clusters", "num_clusters", "teacher", "num_classes", "temperature")
    assert [{name: value for name, value in options.items() if name not in own} for options in (ours, theirs)] == [
        {name: ours[name] for name in ("backbone", "optimizer", "schedule")}
    ] * 2
    assert fitted.pop("model") != distilled.pop("model")
    assert fitted == distilled


def test_a_page_shows_every_cluster(stages, capsys):
    here, _ = stages
    assert run(["clusters", str(here / "edge.safetensors"), "--images", "6"]) == 0
    clustering, _ = Clustering.load(here / "edge.safetensors")
    used = (clustering.sizes > 0).nonzero().squeeze(1).tolist()
    page = (here / "edge-page" / "index.html").read_text()
    for cluster in used:
        assert (here / "edge-page" / f"cluster-{cluster}.png").is_file()
        assert f"cluster {cluster}: {int(clustering.sizes[cluster])} images" in page
    assert (here / "edge-page" / "sizes.png").is_file()
    assert (here / "edge-page" / "purity.png").is_file()
    assert f"{'objective':<14} {clustering.objective[-1] / 1438:.4g}" in page
    assert f"1438 images in {len(used)} of 9 clusters" in capsys.readouterr().out


def test_images_that_the_clusters_were_not_made_for_are_rejected(stages, tmp_path, capsys):
    here, _ = stages
    (tmp_path / "other.yaml").write_text("data: {class_path: ssl_lightning.data.SyntheticImages}")
    assert run(["clusters", str(here / "edge.safetensors"), "--data", str(tmp_path / "other.yaml")]) == 65
    assert "give --data with those that it was made for" in capsys.readouterr().err
    assert run(["clusters", str(here / "edge.safetensors"), "--data", "data/synthetic"]) == 65
    assert "give --data with those that it was made for" in capsys.readouterr().err
    assert run(["clusters", str(tmp_path / "none.safetensors")]) == 65
    assert run(["clusters", str(here / "edge.safetensors"), "--images", "0"]) == 64


@pytest.mark.parametrize("name", ["odd", "cuda:99"])
def test_a_device_that_is_not_there_is_rejected(name):
    with pytest.raises(UsageError, match=f"found device='{name}'"):
        device_named(name)


def test_features_are_embedded_once_and_clustered_for_several_k(stages, tmp_path, capsys):
    here, _ = stages
    out = str(tmp_path / "features.safetensors")
    assert run(["embed", str(here / "pretrain" / "checkpoints" / "last.ckpt"), out, "--device", "cpu"]) == 0
    stored = FeatureFile.load(out)
    assert stored.features.shape == (1438, 64)
    assert torch.equal(stored.rows, torch.arange(1438))
    assert run(["choose-k", out, "--k", "[3,10]", "--seeds", "2"]) == 0
    printed = capsys.readouterr().out
    assert "stability" in printed
    assert "ami" in printed
    table = pd.read_csv(tmp_path / "features-k" / "scores.csv")
    assert set(table["k"]) == {3, 10}
    assert (tmp_path / "features-k" / "curves.png").is_file()
    assert (tmp_path / "features-k" / "index.html").is_file()


@pytest.mark.parametrize("folder", ["/proc/nothing", "file"])
def test_what_cannot_be_written_is_one_line_before_the_work(stages, folder, tmp_path, capsys, monkeypatch):
    here, _ = stages
    (tmp_path / "file").write_text("")
    folder = tmp_path / folder
    for work in ("embed.embed_images", "choose_k.score_cluster_counts", "clusters.draw_cluster_sheets"):
        monkeypatch.setattr(f"ssl_lightning.commands.{work}", lambda *_, **__: pytest.fail("worked for nothing"))
    features = tmp_path / "features.safetensors"
    FeatureFile(torch.randn(30, 4), torch.arange(30), torch.full((30,), -1), {}).save(features)
    checkpoint = str(here / "pretrain" / "checkpoints" / "last.ckpt")
    for command in (
        ["embed", checkpoint, str(folder / "features.safetensors")],
        ["choose-k", str(features), "--k", "[3,10]", "--out", str(folder)],
        ["clusters", str(here / "edge.safetensors"), "--out", str(folder)],
    ):
        assert run(command) == 64
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"ssl-lightning: error: found {folder}/")
        assert "cannot be written" in line


def test_k_is_chosen_with_the_clusterer_and_transform_of_the_second_stage():
    defaults = inspect.signature(choose_k.main).parameters
    callback = yaml.safe_load((CLUSTERFIT / "2_cluster.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]
    for name in ("clusterer", "transform"):
        chosen = defaults[name].default
        assert callback[name]["class_path"] == f"ssl_lightning.clustering.{type(chosen).__name__}"
        assert chosen == type(chosen)(**callback[name].get("init_args", {}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [(["--k", "[3,5000]"], "found k="), (["--seeds", "1"], "expected at least 2")],
)
def test_choices_that_cannot_be_are_one_line(stages, tmp_path, capsys, options, expected):
    features = torch.randn(30, 4)
    path = tmp_path / "features.safetensors"
    FeatureFile(features, torch.arange(30), torch.full((30,), -1), {}).save(path)
    assert run(["choose-k", str(path), *options]) == 64
    assert expected in capsys.readouterr().err


class Make:
    """`make clusterfit` on the digits with a package that may be killed, as a user's shell runs it.

    The first and the last stage take two epochs of two steps, with a checkpoint after each epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.command = folder, folder / "bin" / "ssl-lightning"
        self.command.parent.mkdir()
        self.losses, self.steps = folder / "bin" / "losses.txt", []
        faulty = ROOT / "tests" / "runs" / "faulty.py"
        self.command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{faulty}" "${{FAULT:-none}}" "$@"\n')
        self.command.chmod(0o755)

    def __call__(self, *options: str, fault: str = "none") -> tuple[list[bool], int]:
        """Which of the three stages were run, and the exit code; `steps` are those that they took."""
        small = " ".join([*TINY, "--trainer.max_epochs", "2"])
        command = ["make", "-o", ".venv/.done", "clusterfit", "DATA=digits", f"RUNS={self.folder}"]
        command += [f"BIN={self.command.parent}", f"PRETRAIN_ARGS={small}", f"FIT_ARGS={small}", *options]
        environment = os.environ | {"FAULT": fault, "FAULTY_LOSSES": str(self.losses), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or fault != "none", done.stderr[-2000:]
        taken = self.losses.read_text().splitlines() if self.losses.exists() else []
        self.steps = [int(line.split()[0]) for line in taken]
        self.losses.unlink(missing_ok=True)
        return [f"clusterfit {stage}/3" in done.stdout for stage in (1, 2, 3)], done.returncode


@pytest.mark.slow
def test_make_clusterfit_goes_on_after_kills_and_runs_what_is_missing_and_nothing_else(tmp_path):
    """Killed in every stage: while it trains, before its first checkpoint and after it, and while it clusters.

    The second stage also before the table and before the edge is there. A run resumes from its checkpoint, or restarts
    in the same folder where it has none; nothing is archived.
    """
    make, name = Make(tmp_path), "clusterfit-digits-k8"
    edge, done = tmp_path / f"{name}-cluster.safetensors", tmp_path / f"{name}-fit" / "done.json"
    assert make("K=8", fault="kill@step=1") == ([True, False, False], 2)
    assert make("K=8", fault="kill@step=3") == ([True, False, False], 2)
    assert make.steps == [1, 2, 3]
    assert make("K=8", fault="kill@cluster=1") == ([True, True, False], 2)
    assert make.steps == [3, 4]
    assert make("K=8", fault="kill@onto=.parquet") == ([False, True, False], 2)
    assert make("K=8", fault="kill@onto=.safetensors") == ([False, True, False], 2)
    assert not edge.exists()
    assert make("K=8", fault="kill@step=1") == ([False, True, True], 2)
    assert make("K=8", fault="kill@step=3") == ([False, False, True], 2)
    assert make.steps == [1, 2, 3]
    assert make("K=8") == ([False, False, True], 0)
    assert make.steps == [3, 4]
    assert [path.name for path in tmp_path.iterdir() if ".tmp" in path.name] == []
    assert not list(tmp_path.glob(f"{name}-*.[0-9]"))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert make("K=8") == ([False] * 3, 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files
    done.unlink()
    assert make("K=8") == ([False, False, True], 0)
    edge.unlink()
    assert make("K=8") == ([False, True, True], 0)
    assert not list(tmp_path.glob(f"{name}-fit.*"))  # equal clusters: nothing was archived
    assert make("K=8", "CLUSTER_ARGS=--trainer.callbacks.clusterer.iterations 2") == ([False, True, True], 0)
    assert list(tmp_path.glob(f"{name}-fit.*"))
