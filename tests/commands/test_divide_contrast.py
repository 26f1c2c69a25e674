"""The four stages of Divide and Contrast, as a user runs them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from ssl_lightning import load_model
from ssl_lightning.checkpoints import read_checkpoint
from ssl_lightning.clustering import Clustering, normalized_mutual_info
from ssl_lightning.data import Digits, Subset
from ssl_lightning.entry import run
from ssl_lightning.evaluation import KNN
from ssl_lightning.evaluation.probe import LabelledFeatures
from ssl_lightning.files import sha256_of
from ssl_lightning.inspect import load_run
from ssl_lightning.runs.metrics import read_rows

ROOT = Path(__file__).parents[2]
K = 2
SMALL = [
    *("--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8"),
    *("--model.hidden", "[32]", "--model.projection", "16"),
    *("--data.image_size", "8", "--data.batch_size", "64"),
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
    *("--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
]
NOT_EVALUATED = [*SMALL, "--trainer.limit_val_batches", "0"]


def test_an_expert_is_evaluated_more_rarely_by_the_number_of_experts():
    """An epoch of one of K experts is K times shorter than that of the base, and an evaluation as long."""
    folder = ROOT / "configs" / "divide_contrast"
    base, cluster, expert = (
        yaml.safe_load((folder / f"{name}.yaml").read_text())["trainer"] for name in ("1_base", "2_cluster", "3_expert")
    )
    k = cluster["callbacks"][0]["init_args"]["num_clusters"]
    assert expert["check_val_every_n_epoch"] >= k * base["check_val_every_n_epoch"]


class Stages:
    """Commands of the stages, all of which write into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.edge = folder, str(folder / "edge.safetensors")

    def checkpoint(self, name: str) -> str:
        return str(self.folder / name / "checkpoints" / "last.ckpt")

    def command(self, subcommand: str, stage: str, name: str, *options: str) -> list[str]:
        where = ["--run.dir", str(self.folder), "--run.name", name]
        return [subcommand, "--config", f"configs/divide_contrast/{stage}.yaml", *where, *options]

    def base(self) -> list[str]:
        return self.command("fit", "1_base", "base", *SMALL)

    def cluster(self, name: str = "edge", *options: str) -> list[str]:
        callback = ["--trainer.callbacks.path", str(self.folder / name), "--trainer.callbacks.num_clusters", str(K)]
        small = ["--ckpt_path", self.checkpoint("base"), "--data.image_size", "8", "--trainer.accelerator", "cpu"]
        return self.command("predict", "2_cluster", f"{name}-run", *callback, *small, *options)

    def expert(self, k: int) -> list[str]:
        subset = ["--data.subset.path", self.edge, "--data.subset.value", str(k)]
        return self.command("fit", "3_expert", f"expert-{k}", *subset, *SMALL)

    def distill(self, name: str, order: list[int]) -> list[str]:
        experts = [self.checkpoint(f"expert-{k}") for k in order]
        files = ["--model.base", self.checkpoint("base"), "--model.clusters", self.edge]
        return self.command("fit", "4_distill", name, *files, "--model.experts", f"[{','.join(experts)}]", *SMALL)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    made = Stages(tmp_path_factory.mktemp("stages"))
    before, argv = Path.cwd(), sys.argv
    os.chdir(ROOT)
    sys.argv = ["ssl-lightning"]
    try:
        for command in (
            made.base(),
            made.cluster(),
            *(made.expert(k) for k in range(K)),
            made.distill("student", [0, 1]),
        ):
            assert run(command) == 0, command
        yield made
    finally:
        os.chdir(before)
        sys.argv = argv


def test_the_stages_hand_files_to_each_other(stages):
    clustering, made_of = Clustering.load(stages.edge)
    assert made_of["checkpoint"] == sha256_of(Path(stages.checkpoint("base")).resolve())
    assert clustering.centroids.shape == (K, 32)  # of the hidden layer
    assert clustering.centroids.norm(dim=1).tolist() == pytest.approx([1.0] * K, abs=1e-5)
    assert int(clustering.sizes.sum()) == 1438
    student = load_model(stages.checkpoint("student"))
    assert student.pseudo_labels.rows[:, 0].tolist() == clustering.labels.tolist()
    rows = read_rows(stages.folder / "student" / "metrics.csv")
    assert [float(row["train/loss"]) > 0 for row in rows if row.get("train/loss")] == [True, True]
    inputs = (stages.folder / "student" / "run.json").read_text()
    read = [stages.edge, *(stages.checkpoint(name) for name in ("base", "expert-0", "expert-1"))]
    assert all(sha256_of(Path(file).resolve()) in inputs for file in read)


def test_the_experts_share_out_the_images_and_the_steps_of_a_pass(stages):
    """Each image once; a pass over all parts is one over the images, but for what fills no batch."""
    batch, whole = 64, Digits(batch_size=64)
    parts = [Digits(batch_size=batch, subset=Subset(stages.edge, value=k)) for k in range(K)]
    ids = torch.cat([part.training.sample_ids for part in parts])
    assert torch.equal(ids.sort().values, whole.training.sample_ids.sort().values)
    trained = sum(part.batches_per_epoch for part in parts) * batch
    assert whole.num_samples - K * (batch - 1) <= trained <= whole.num_samples


def test_the_state_of_all_experts_is_one_command(stages, capsys):
    assert run(["experts", stages.edge, "--evaluate", "true", "--device", "cpu"]) == 0
    state, evaluations = capsys.readouterr().out.split("within the parts of digits, percent")
    clustering, _ = Clustering.load(stages.edge)
    rows = [line.split() for line in state.splitlines()[1:] if line]
    assert [(int(row[0]), int(row[1])) for row in rows] == list(enumerate(clustering.sizes.tolist()))
    assert [row[4:8] for row in rows] == [["finished", "2", "of", "2"]] * K
    assert [row[-1] for row in rows] == [str(stages.folder / f"expert-{k}") for k in range(K)]
    rows = [line.split() for line in evaluations.splitlines()[2:] if line]
    assert [(row[0], row[-1]) for row in rows] == [("0", "base"), ("0", "expert-0"), ("1", "base"), ("1", "expert-1")]
    # the probe's training split is what was clustered, so its parts are the clusters, and every test row is in one
    assert [int(row[1]) for row in rows[::2]] == clustering.sizes.tolist()
    assert sum(int(row[2]) for row in rows[::2]) == 359


def test_evaluating_within_a_part_is_evaluating_its_images(stages, capsys):
    """Against the probe on features computed by hand."""
    assert run(["experts", stages.edge, "--evaluate", "true", "--device", "cpu"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith(("base", "expert-1"))]
    clustering, _ = Clustering.load(stages.edge)
    base, expert = load_model(stages.checkpoint("base")), load_model(stages.checkpoint("expert-1"))
    data = load_run(stages.folder / "base").data
    splits = data.probes["digits"]
    images = [base.normalize(split.read(torch.arange(len(split)))[0]) for split in splits]  # digits of 8 pixels
    with torch.no_grad():
        parts = [F.normalize(base.embed(x, "hidden"), dim=1) @ clustering.centroids.T for x in images]
        own = [scores.argmax(1) == 1 for scores in parts]
        assert torch.equal(own[0], clustering.labels == 1)
        for network, name in ((base, "base"), (expert, "expert-1")):
            sets = [
                LabelledFeatures(network.embed(x[mine]), split.labels[mine], 10)
                for x, mine, split in zip(images, own, splits, strict=True)
            ]
            expected = 100 * KNN()(*sets)["knn/top1"]
            (row,) = [row for row in table if row[0] == "1" and row[-1] == name]
            assert float(row[3]) == pytest.approx(expected, abs=0.3)


def test_images_that_have_moved_are_named_by_an_option(stages, tmp_path, capsys):
    clustering, metadata = Clustering.load(stages.edge)
    moved = {"class_path": "ssl_lightning.data.UncuratedImages", "init_args": {"path": str(tmp_path / "moved")}}
    edge = str(tmp_path / "edge.safetensors")
    clustering.save(edge, metadata | {"data_config": json.dumps(moved)})
    given = ["experts", edge, "--runs", str(stages.folder)]
    assert run(given) == 65
    assert run([*given, "--data", "data/digits"]) == 0
    assert "finished" in capsys.readouterr().out
    assert run([*given, "--data", "data/synthetic"]) == 65
    assert "--data names other images" in capsys.readouterr().err


def test_an_expert_that_is_not_there_is_named_with_its_command(stages, tmp_path, capsys):
    for name in ("edge.safetensors", "expert-0"):
        (tmp_path / name).symlink_to(stages.folder / name)
    assert run(["experts", str(tmp_path / "edge.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "not begun" in out
    assert "--data.subset.value 1" in out
    assert run(["experts", str(tmp_path / "edge.safetensors"), "--evaluate", "true"]) == 64
    assert "give --base" in capsys.readouterr().err


def test_the_parts_of_the_papers_control_are_random_for_another_clusterer(stages):
    """As the header of the config has it."""
    random = ["--trainer.callbacks.clusterer", "ssl_lightning.clustering.RandomPartition"]
    random += ["--trainer.callbacks.clusterer.metric", "cosine"]
    assert run(stages.cluster("random", *random)) == 0
    parts, _ = Clustering.load(stages.folder / "random.safetensors")
    clusters, _ = Clustering.load(stages.edge)
    assert parts.sizes.tolist() == [719, 719]
    assert parts.centroids.norm(dim=1).tolist() == pytest.approx([1.0] * K, abs=1e-5)
    assert normalized_mutual_info(parts.labels, clusters.labels) < 0.01


def test_an_expert_that_was_trained_elsewhere_is_a_folder_to_copy(stages, tmp_path, caplog):
    """By a file of clusters that lies elsewhere too, and by the policy that make passes."""
    parts = shutil.copy(stages.edge, tmp_path / "parts.safetensors")
    there = ["--run.dir", str(tmp_path / "there"), "--data.subset.path", str(parts)]
    assert run([*stages.expert(0), *there]) == 0
    shutil.copytree(tmp_path / "there" / "expert-0", tmp_path / "here" / "expert-0", symlinks=True)
    assert run([*stages.expert(0), "--run.dir", str(tmp_path / "here"), "--resume.policy", "restart"]) == 0
    assert "nothing to do" in caplog.text
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["expert-0"]
    paths = [Path(stages.checkpoint("expert-0")), tmp_path / "here" / "expert-0" / "checkpoints" / "last.ckpt"]
    ours, theirs = (read_checkpoint(path)["state_dict"] for path in paths)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if isinstance(ours[name], torch.Tensor))
    assert run([*stages.expert(1), "--run.dir", str(tmp_path / "here"), "--run.name", "expert-0"]) == 64


def test_experts_in_another_order_are_one_line(stages, capsys):
    assert run(stages.distill("swapped", [1, 0])) == 65
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "trained on cluster 1 as expert 0" in line


def test_an_expert_that_was_made_again_is_noticed_by_the_student(stages, capsys):
    expert = Path(stages.checkpoint("expert-1")).resolve()
    content = expert.read_bytes()
    expert.write_bytes(content + b"0")
    assert run(stages.distill("student", [0, 1])) == 64
    assert "experts.1_sha256" in capsys.readouterr().err
    expert.write_bytes(content)
    assert run(stages.distill("student", [0, 1])) == 0
    expert.rename(expert.with_suffix(".gone"))
    assert run(stages.distill("another", [0, 1])) == 64
    assert "--model.experts.1" in capsys.readouterr().err


class Make:
    """`make divide_contrast` on the digits with a package that may be killed, as a user's shell runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.command, self.output = folder, folder / "bin" / "ssl-lightning", ""
        self.command.parent.mkdir()
        faulty = ROOT / "tests" / "runs" / "faulty.py"
        self.command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{faulty}" "${{FAULT:-none}}" "$@"\n')
        self.command.chmod(0o755)

    def __call__(self, *options: str, fault: str = "none") -> tuple[str, int]:
        """The stages that were run, by their numbers, and the exit code."""
        small = " ".join(NOT_EVALUATED)
        command = ["make", "-o", ".venv/.done", "divide_contrast", "DATA=digits", f"K={K}", f"RUNS={self.folder}"]
        command += [f"BIN={self.command.parent}", "CLUSTER_ARGS=--data.image_size 8"]
        command += [f"{stage}_ARGS={small}" for stage in ("BASE", "EXPERT", "DISTILL")]
        environment = os.environ | {"FAULT": fault, "FAULTY_LOSSES": os.devnull, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or fault != "none", done.stderr[-2000:]
        self.output = done.stdout
        return "".join(re.findall(r"^divide_contrast (\d)/4", done.stdout, re.MULTILINE)), done.returncode


@pytest.mark.slow
def test_make_divide_contrast_goes_on_after_kills_and_runs_what_is_missing_and_nothing_else(tmp_path):
    make, name = Make(tmp_path), f"divide_contrast-digits-k{K}"
    assert make(fault="kill@step=2") == ("1", 2)
    assert make(fault="kill@cluster=1") == ("12", 2)
    assert make(fault="kill@step=2") == ("23", 2)
    assert make() == ("334", 0)
    assert re.search(rf"all: \S+, for which \S+{name}-base would train \d+ epochs", make.output)
    assert [path.name for path in tmp_path.iterdir() if ".tmp" in path.name] == []
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert make() == ("", 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files
    (tmp_path / f"{name}-expert-1" / "done.json").unlink()
    assert make() == ("34", 0)  # the expert that is there is found equal, and so is the student
    assert not [*tmp_path.glob(f"{name}-expert-1.*"), *tmp_path.glob(f"{name}-distill.*")]
    base = tmp_path / f"{name}-base" / "checkpoints" / "last.ckpt"
    assert make("-j2", f"BASE={base}", "EXPERT_ARGS=" + " ".join([*NOT_EVALUATED, "--model.momentum", "0.9"])) == (
        "2334",
        0,
    )
    assert list(tmp_path.glob(f"{name}-expert-1.*"))  # other experts: the old ones were archived, the student too
    assert list(tmp_path.glob(f"{name}-distill.*"))
