"""The command line: every shipped configuration takes a step, every mistake is one line, nothing foreign runs."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from jsonargparse import ArgumentParser
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ssl_lightning.checkpoints import DurableCheckpointIO, load_model
from ssl_lightning.clustering import Clustering
from ssl_lightning.data import Digits
from ssl_lightning.entry import run
from ssl_lightning.files import sha256_of
from ssl_lightning.methods import Method, MoCLR
from ssl_lightning.models import Preprocessing, ResNet18
from tests.callbacks.saved_clusters import check_newest

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
METHODS = sorted(path for path in CONFIGS.glob("*.yaml") if path.name not in ("eval.yaml", "clusters.yaml"))
STAGES = [path for path in sorted(CONFIGS.glob("*/[1-9]_*.yaml")) if path.name != "2_cluster.yaml"]
"""Those that train; their steps are taken by tests/commands/, one after the other."""
DATA = sorted((CONFIGS / "data").glob("*.yaml"))
CPU = CONFIGS / "scale" / "cpu.yaml"
PAPER = [path for path in sorted((CONFIGS / "scale").glob("*.yaml")) if path != CPU]
OF_PACKS = ("cifar10", "cifar10_longtail", "cifar10_mixed", "uncurated", "union")
"""Data files of images that are found in `PACKS`; data/pool needs a manifest of them."""
PACKS = Path(os.environ.get("SSL_LIGHTNING_DATA", "data"))
TINY = [
    *("--model.backbone", "ssl_lightning.models.ResNet18"),
    *("--model.backbone.width", "8"),
    *("--data.batch_size", "16"),
    *("--trainer.max_steps", "1"),
    *("--trainer.max_epochs", "2"),
    *("--trainer.limit_val_batches", "1"),
    *("--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu"),
]
HEAD = ["--model.hidden", "[32]", "--model.projection", "16"]
PROTOTYPES = ["--model.num_prototypes", "16", *HEAD]
SMALLER = {
    "byol": [*HEAD, "--model.predictor_hidden", "[32]"],
    "deepcluster": ["--model.num_clusters", "16"],
    "deepcluster_v2": ["--model.num_clusters", "16", *HEAD],
    "3_fit": ["--model.num_clusters", "16"],
    "4_distill": HEAD,
    "demo": ["--model.num_clusters", "16"],
    "instance_recognition": ["--model.projection", "16", "--model.negatives", "32"],
    "local_aggregation": [
        *("--model.num_clusters", "16", "--model.num_neighbors", "32", "--model.projection", "16"),
        *("--model.warmup_epochs", "0"),
    ],
    "moclr": HEAD,
    "rotation_prediction": [],
    "seer": PROTOTYPES,
    "simclr": HEAD,
    "supervised": ["--model.label_noise", "0.5"],
    "swav": [*PROTOTYPES, "--model.queue_length", "32"],
}
"""What each small config takes one step with beside `TINY`; all other keys are as shipped."""


CLUSTERS = {
    **dict.fromkeys(("deepcluster", "deepcluster_v2", "demo", "local_aggregation"), "pseudo-labels"),
    **{"swav": "prototypes", "seer": "prototypes", "instance_recognition": "memory-bank"},
}
"""The source of the saved clusters of each small config, of the others "features"."""


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])


def fit(tmp_path, *arguments):
    return run(["fit", *arguments, "--run.dir", str(tmp_path)])


def rejected(capsys, *arguments):
    """The one line that a mistake ends in."""
    try:
        code = run(list(arguments))
    except SystemExit as error:
        code = error.code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ssl-lightning: error")]
    assert code not in (0, None)
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            ["--model.num_cluster", "5"],
            "found --model.num_cluster, which is not known there; expected a name such as num_clusters",
        ),
        (
            ["--data.batchsize=5"],
            "found --data.batchsize, which is not known there; expected a name such as batch_size",
        ),
        (
            ["--trainer.max_epoch", "3"],
            "found the option --trainer.max_epoch, which is not known; expected --trainer.max_epochs",
        ),
        (
            ["--config", "keys.yaml"],
            "found trainer.callbacks+.0.init_args.probes.0.init_args.metrik in keys.yaml, which",
        ),
        (["--config=keys.yaml"], "found trainer.callbacks+.0.init_args.probes.0.init_args.metrik in keys.yaml, which"),
        (["--config={model: {jiter: 1}, zz: " + 300 * "a" + "}"], "found model.jiter in --config, which is not known"),
        (["--data.views", "[{jiter: 1}]"], "found --data.views.0.jiter, which is not known there"),
    ],
)
def test_a_misspelled_key_is_named_with_its_place(mistake, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    probes = [{"class_path": "ssl_lightning.evaluation.KNN", "init_args": {"metrik": 3}}]
    probes = [{"class_path": "ssl_lightning.callbacks.ProbeFeatures", "init_args": {"probes": probes}}]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": probes}}))
    assert message in rejected(capsys, "fit", "--config", str(CONFIGS / "demo.yaml"), *mistake)


@pytest.mark.parametrize("config", METHODS, ids=lambda path: path.stem)
def test_every_method_takes_a_step_as_it_is_shipped(config, tmp_path, capsys):
    assert fit(tmp_path, "--config", str(config), *TINY, *SMALLER[config.stem]) == 0
    (folder,) = tmp_path.iterdir()
    present = {entry.name for entry in folder.iterdir()}
    assert present >= {"config.yaml", "run.json", "metrics.csv", "checkpoints", "report", "done.json"}
    assert (folder / "checkpoints" / "last.ckpt").resolve().name == "step-1.ckpt"
    assert "untrained" in capsys.readouterr().out
    assert check_newest(folder) == CLUSTERS.get(config.stem, "features")


def test_averaged_weights_are_in_the_table_and_embed_images(tmp_path, capsys):
    config = [
        "--config",
        "configs/byol.yaml",
        *TINY,
        *SMALLER["byol"],
        "--run.name",
        "averaged",
        "--trainer.max_steps",
        "3",
    ]
    assert fit(tmp_path, *config) == 0
    assert "eval_ema" in capsys.readouterr().out
    features = {}
    for weights in ("online", "ema"):
        out = str(tmp_path / f"{weights}.safetensors")
        checkpoint = str(tmp_path / "averaged" / "checkpoints" / "last.ckpt")
        assert run(["embed", checkpoint, out, "--weights", weights]) == 0
        features[weights] = load_file(out)["features"]
        with safe_open(out, framework="pt") as file:
            assert file.metadata()["weights"] == weights
    assert features["ema"].shape == features["online"].shape
    assert not torch.equal(features["ema"], features["online"])


@pytest.mark.parametrize("overlay", [*DATA, CPU], ids=lambda path: path.stem)
@pytest.mark.parametrize("config", [*METHODS, *STAGES], ids=lambda path: path.stem)
def test_every_method_parses_with_every_overlay(config, overlay, capsys):
    with pytest.raises(SystemExit) as done:
        run(["fit", "--config", str(config), "--config", str(overlay), "--print_config"])
    assert done.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"].startswith("ssl_lightning.methods.")


def method_of(paper: Path) -> Path:
    name = paper.stem.rpartition("_")[0]
    last = {"clusterfit": "clusterfit/3_fit.yaml", "divide_contrast": "divide_contrast/4_distill.yaml"}
    return CONFIGS / last.get(name, f"{name}.yaml")


def edge_for_digits(folder: Path) -> Path:
    """Clusters of the digits, as the second stage of ClusterFit leaves them."""
    data = Digits()
    labels = torch.arange(data.num_samples) % 16
    clustering = Clustering(labels, torch.zeros(len(labels)), torch.zeros(16, 4), labels.bincount())
    clustering.save(folder / "clusters.safetensors", {"data": data.fingerprint})
    return folder / "clusters.safetensors"


def teacher_at_paper_scale(folder: Path, paper: Path) -> str:
    """A base, or an expert, for images as the config has them."""
    data = yaml.safe_load(paper.read_text())["data"]["init_args"]
    preprocessing = Preprocessing(32, tuple(data["mean"]), tuple(data["std"]))
    teacher = MoCLR(ResNet18(8), hidden=(32,), projection=16, preprocessing=preprocessing)
    checkpoint = {"state_dict": teacher.state_dict(), "global_step": 1, "epoch": 0}
    teacher.on_save_checkpoint(checkpoint)
    DurableCheckpointIO().save_checkpoint(checkpoint, folder / "step-1.ckpt")
    return str(folder / "step-1.ckpt")


@pytest.mark.parametrize("paper", PAPER, ids=lambda path: path.stem)
def test_a_config_at_paper_scale_takes_a_step_when_it_is_made_small(paper, tmp_path):
    """Trunk, crops, batch and clusters are made small and the processes one; every other key is as shipped."""
    method = method_of(paper)
    tiny = TINY[4:] if method.stem == "seer" else TINY  # SEER has a RegNet
    options = [*tiny, *SMALLER[method.stem], "--data.image_size", "32", "--data.num_workers", "0"]
    options += ["--trainer.strategy", "auto", "--trainer.devices", "1", "--trainer.sync_batchnorm", "false"]
    if method.stem == "3_fit":
        options += ["--model.clusters", str(edge_for_digits(tmp_path))]
    if method.stem == "4_distill":
        teacher = teacher_at_paper_scale(tmp_path, paper)
        options += ["--model.base", teacher, "--model.experts", f"[{','.join([teacher] * 16)}]"]
        options += ["--model.clusters", str(edge_for_digits(tmp_path))]
    if method.stem == "deepcluster":
        options += ["--model.backbone.width", "32"]  # as many features as principal components are kept
    if method.stem == "seer":
        options = [*options, "--model.backbone", "ssl_lightning.models.TimmBackbone"]
        options += ["--model.backbone.name", "regnety_002", "--model.backbone.activation_checkpointing", "true"]
    # oneDNN's bfloat16 gradient of a strided grouped convolution over a map of 1x1 reads memory that nobody wrote
    options += ["--trainer.precision", "32", "--trainer.limit_val_batches=0"]
    assert fit(tmp_path, "--config", str(method), "--config", str(paper), *options) == 0


TRUNKS = {"32gf": 141, "64gf": 277, "128gf": 637, "256gf": 1270, "resnet50": 23.5, "alexnet": 58.3}
"""Millions of parameters, pooled or fully connected layers included, from the papers' own tables."""


@pytest.mark.parametrize("paper", PAPER, ids=lambda path: path.stem)
def test_a_config_at_paper_scale_has_the_papers_parameters(paper, capsys):
    with pytest.raises(SystemExit):
        run(["fit", "--config", str(method_of(paper)), "--config", str(paper), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["model"]
    parser = ArgumentParser()
    parser.add_subclass_arguments(Method, "model")
    with torch.device("meta"):
        method = parser.instantiate_classes(parser.parse_object({"model": printed})).model
    millions = sum(parameter.numel() for parameter in method.backbone.parameters()) / 1e6
    assert millions == pytest.approx(TRUNKS[paper.stem.rpartition("_")[2]], rel=0.01)
    options = printed["init_args"]
    if "num_prototypes" in options:
        widths = [method.backbone.num_features, *options["hidden"], options["projection"]]
        linear = sum(a * b + b for a, b in pairwise(widths))
        norms = 2 * sum(options["hidden"]) if options.get("projector_norm", True) else 0
        assert sum(parameter.numel() for parameter in method.projector.parameters()) == linear + norms
        assert method.prototypes.weight.shape == (options["num_prototypes"], options["projection"])


@pytest.mark.parametrize(
    "overlay",
    [*(pytest.param(path.stem, marks=pytest.mark.slow) for path in DATA if path.stem in OF_PACKS), "synthetic"],
)
def test_data_are_swapped_in_yaml_alone(overlay, tmp_path):
    if overlay != "synthetic" and not (PACKS / "cifar10.tar.xz").exists():
        pytest.skip("no packs: SSL_LIGHTNING_DATA does not name a folder with cifar10.tar.xz")
    overlays = ["--config", f"configs/data/{overlay}.yaml", "--data.reference_images", "64"]
    assert fit(tmp_path, "--config", "configs/deepcluster.yaml", *overlays, *TINY, "--trainer.limit_val_batches=0") == 0


@pytest.mark.slow
def test_the_pool_is_a_manifest_that_data_build_writes(tmp_path, monkeypatch):
    if not (PACKS / "cifar10.tar.xz").exists():
        pytest.skip("no packs: SSL_LIGHTNING_DATA does not name a folder with cifar10.tar.xz")
    monkeypatch.chdir(tmp_path)
    shards = sorted(str(path.resolve()) for path in PACKS.glob("uncurated-00000[01].tar"))
    assert run(["data", "build", *shards, "--out", "pool.parquet"]) == 0
    given = ["--config", "deepcluster", "--config", "data/pool", "--data.reference_images", "64", *TINY]
    assert fit(tmp_path, *given, "--run.name", "pool", "--model.num_clusters", "16") == 0
    names = (tmp_path / "pool" / "metrics.csv").read_text().splitlines()[0]
    assert all(f"eval/{name}/" in names for name in ("flowers", "tinyimagenet", "omniglot"))


def test_clusterer_and_probe_are_swapped_on_the_command_line(tmp_path):
    callbacks = yaml.safe_load((CONFIGS / "deepcluster.yaml").read_text())["trainer"]["callbacks"]
    callbacks[0]["init_args"]["clusterer"] = {
        "class_path": "ssl_lightning.clustering.KMeans",
        "init_args": {"metric": "cosine", "init": "k-means++"},
    }
    callbacks[0]["init_args"]["transform"] = None
    callbacks[1]["init_args"] = {"probes": [{"class_path": "ssl_lightning.evaluation.KNN", "init_args": {"k": 5}}]}
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    arguments = ["--config", "configs/deepcluster.yaml", "--config", str(overlay), "--run.name", "swapped", *TINY]
    assert fit(tmp_path / "runs", *arguments) == 0
    assert "eval/knn5/top1" in (tmp_path / "runs" / "swapped" / "metrics.csv").read_text().splitlines()[0]


def test_a_checkpoint_is_evaluated_and_clustered_by_the_method_that_it_holds(tmp_path, capsys, caplog):
    assert fit(tmp_path, "--config", "configs/demo.yaml", "--run.name", "first", *TINY) == 0
    checkpoint = str(tmp_path / "first" / "checkpoints" / "last.ckpt")
    evaluate = ["validate", "--config", "configs/eval.yaml", "--ckpt_path", checkpoint, "--run.dir", str(tmp_path)]
    assert run([*evaluate, "--data.image_size", "16", "--trainer.accelerator", "cpu", "--run.name", "evaluated"]) == 0
    assert "k-NN" in capsys.readouterr().out
    assert (tmp_path / "evaluated" / "results.json").is_file()
    callback = {
        "class_path": "ssl_lightning.callbacks.WriteClusters",
        "init_args": {
            "path": "clusters",
            "num_clusters": 10,
            "clusterer": {"class_path": "ssl_lightning.clustering.KMeans"},
        },
    }
    overlay = tmp_path / "write.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    predict = ["predict", "--config", "configs/eval.yaml", "--config", str(overlay), "--ckpt_path", checkpoint]
    assert "trained at" not in caplog.text
    assert run([*predict, "--run.dir", str(tmp_path), "--trainer.accelerator", "cpu", "--data.image_size", "8"]) == 0
    (line,) = (record.message for record in caplog.records if "trained at" in record.message)
    assert line.startswith(f"found data.image_size=8 and {checkpoint} trained at 16 pixels")
    (inside,) = tmp_path.glob("*-predict")  # a relative path of a file is taken from the folder of the run
    assert (inside / "clusters.safetensors").is_file()
    assert (inside / "clusters.parquet").is_file()


def test_any_network_is_evaluated_and_clusters_say_which_weights_they_are_of(tmp_path, capsys):
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), weights)
    frozen = ["--model", "FrozenBackbone", "--model.name", "timm:test_resnet", "--model.weights", str(weights)]
    evaluate = ["validate", "--config", "configs/eval.yaml", *frozen, "--run.dir", str(tmp_path)]
    assert run([*evaluate, "--trainer.accelerator", "cpu", "--run.name", "evaluated"]) == 0
    assert "FrozenBackbone" in capsys.readouterr().out
    write = ["predict", "--config", "configs/clusters.yaml", *frozen, "--trainer.accelerator", "cpu"]
    path = ["--trainer.callbacks.path", str(tmp_path / "clusters"), "--trainer.callbacks.num_clusters", "10"]
    assert run([*write, *path, "--run.dir", str(tmp_path)]) == 0
    with safe_open(tmp_path / "clusters.safetensors", framework="pt") as edge:
        assert edge.metadata()["checkpoint"] == sha256_of(weights)
    line = rejected(capsys, "fit", "--config", "configs/eval.yaml", *frozen, "--run.dir", str(tmp_path))
    assert "nothing to train" in line


def test_a_supervised_run_teaches_and_its_student_is_evaluated_without_it(tmp_path, capsys):
    config = ["--config", "configs/supervised.yaml", *TINY]
    assert fit(tmp_path, *config, "--run.name", "teacher") == 0
    teacher = str(tmp_path / "teacher" / "checkpoints" / "last.ckpt")
    student = [*config, "--model", "SoftDistillation", *TINY[:4], "--model.teacher", teacher]
    line = rejected(capsys, "fit", *student, "--model.num_classes", "7", "--run.dir", str(tmp_path / "rejected"))
    assert "--model.num_classes 10" in line
    assert fit(tmp_path, *student, "--run.name", "student") == 0
    (tmp_path / "teacher").rename(tmp_path / "gone")
    evaluate = ["validate", "--config", "configs/eval.yaml", "--run.dir", str(tmp_path), "--run.name", "evaluated"]
    evaluate += ["--ckpt_path", str(tmp_path / "student" / "checkpoints" / "last.ckpt")]
    assert run([*evaluate, "--trainer.accelerator", "cpu"]) == 0
    assert "SoftDistillation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.num_clustres", "5"], ["num_clustres"]),
        (["--model.num_clusters", "many"], ["num_clusters", "many"]),
        (["--model.num_clusters", "5000"], ["k=5000", "1438", "num_clusters"]),
        (["--config", "configs/nothing.yaml"], ["configs/nothing.yaml"]),
        (["--model", "os.system"], ["SSL_LIGHTNING_PLUGINS"]),
        (["--model", "ssl_lightning.data.Digits"], ["Digits"]),
        (["--run.name", "../escape"], ["--run.name", "letters"]),
        (["--run.dir", "/proc/nothing"], ["--run.dir"]),
        (["--resume.policy", "must"], ["--resume.policy"]),
        (["--ckpt_path", "nothing.ckpt"], ["--ckpt_path"]),
        (["--data.batch_size", "5000"], ["batch_size"]),
        (["--config", "configs/data/folder.yaml", "--data.path", "no_such_folder"], ["no_such_folder"]),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_a_mistake_is_one_line_before_any_step(arguments, words, tmp_path, capsys):
    where = [] if "--run.dir" in arguments else ["--run.dir", str(tmp_path)]
    line = rejected(capsys, "fit", "--config", "configs/demo.yaml", *arguments, *where, "--trainer.accelerator", "cpu")
    assert all(word in line for word in words), line


def callback(path, **init_args):
    return yaml.safe_dump([{"class_path": f"ssl_lightning.callbacks.{path}", "init_args": init_args}])


def part(path, **init_args):
    return {"class_path": f"ssl_lightning.{path}", "init_args": init_args}


KMEANS = part("clustering.KMeans")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.batch_size", "1"], "found data.batch_size=1; expected at least 2"),
        (["--data.views", "[{count: 0}]"], "found View.count=0"),
        (["--model.backbone.width", "3"], "found ResNet18 width=3"),
        (
            ["--model.backbone=ssl_lightning.models.TimmBackbone", "--model.backbone.name=nonsense"],
            "found backbone name='nonsense'",
        ),
        (
            ["--trainer.callbacks", callback("Recluster", clusterer=part("clustering.FaissKMeans", empty="keep"))],
            'found FaissKMeans(empty="keep")',
        ),
        (
            [
                "--trainer.callbacks",
                callback("Recluster", clusterer=KMEANS, transform=part("clustering.PCAWhitening", dim=0)),
            ],
            "found PCAWhitening(dim=0",
        ),
        (["--trainer.callbacks", callback("ProbeFeatures", probes=[part("evaluation.KNN", k=0)])], "found KNN(k=0"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_a_constructor_rejects_is_one_line(arguments, words, tmp_path, capsys):
    where = ["--run.dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    line = rejected(capsys, "fit", "--config", "configs/demo.yaml", *where, *arguments)
    assert line.startswith(f"ssl-lightning: error: {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.num_clusters", "1"], "found num_clusters=1; expected at least 2"),
        (["--trainer.max_epochs", "0"], "found --trainer.max_epochs 0"),
        (["--trainer.max_steps", "0"], "found --trainer.max_steps 0"),
        (["--trainer.callbacks", "[]"], "found no pseudo-labels"),
        (["--trainer.callbacks", callback("Recluster", clusterer=KMEANS, first_epoch=1)], "found no pseudo-labels"),
        (
            ["--model.optimizer.lr", "-1"],
            "found model.optimizer with settings that torch.optim.sgd.SGD rejects (Invalid learning rate: -1.0)",
        ),
        (["--seed_everything", "-5"], "found --seed_everything -5; expected 0 to 4294967295"),
        pytest.param(
            ["--trainer.accelerator", "gpu"],
            "found trainer.accelerator with settings that Lightning rejects (No supported gpu backend found!)",
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU"),
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_trained_is_one_line(arguments, words, tmp_path, capsys):
    where = ["--run.dir", str(tmp_path), *TINY, "--trainer.limit_val_batches=0"]
    line = rejected(capsys, "fit", "--config", "configs/demo.yaml", *where, *arguments)
    assert line.startswith(f"ssl-lightning: error: {words}")


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_the_folder_of_a_trained_run_is_not_written_into(subcommand, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    for name in ("run.json", "metrics.csv"):
        (tmp_path / "mine" / name).write_text("{}")
    where = ["--run.dir", str(tmp_path), "--run.name", "mine", "--trainer.accelerator", "cpu"]
    assert f"--run.name mine-{subcommand}" in rejected(capsys, subcommand, "--config", "configs/eval.yaml", *where)
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"run.json", "metrics.csv"}


@pytest.mark.parametrize("window", ["[864,1264]", "percentile"])
def test_an_intensity_window_and_patterns_are_options_of_a_run(window, tmp_path):
    for number in range(40):
        path = tmp_path / "images" / ("train", "test")[number % 4 < 2] / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 1000 + 100 * (number % 2) + number, dtype=np.uint16)).save(path)
    options = ["--data", "CuratedImages", "--data.path", str(tmp_path / "images"), "--data.image_size", "8"]
    options += ["--data.intensity_window", window, "--data.include", '["*.png"]', "--run.dir", str(tmp_path)]
    assert run(["validate", "--config", "configs/eval.yaml", *options, "--run.name", "deep"]) == 0
    assert (tmp_path / "deep" / "results.json").is_file()


@pytest.mark.parametrize("readable", [0, 30])
def test_unreadable_images_are_named_before_they_are_clustered(readable, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(60):
        path = images / f"{number:02}.jpg"
        if number < readable:
            Image.new("RGB", (16, 16), (4 * number, 99, 255 - 4 * number)).save(path)
        else:
            path.write_text("no image")
    overlay = ["--config", "configs/demo.yaml", "--config", "configs/data/folder.yaml", *TINY]
    where = ["--data.path", str(images), "--run.dir", str(tmp_path / "runs"), "--data.num_workers", "0"]
    line = rejected(capsys, "fit", *overlay, *where, "--model.num_clusters", "4", "--data.image_size", "16")
    count = 60 - readable
    assert f"{count} of 60 training images cannot be read ({count} of no format that is read)" in line
    assert f"{readable:02}.jpg" in line
    assert "data.max_unreadable=0.05" in line


def test_a_job_of_slurm_out_of_time_leaves_a_checkpoint_and_is_queued_again(tmp_path, monkeypatch):
    """Lightning would save in its handler, queue the job itself and train on until it is killed."""
    job = {"JOB_ID": "7", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "learn"}
    for name, value in {**job, "NODELIST": "localhost"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\ntouch {tmp_path}/queued\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    inner, steps = Method.on_before_optimizer_step, []

    def interrupted(self, optimizer):
        steps.append(self.trainer.global_step)
        if steps[-1] == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return inner(self, optimizer)

    monkeypatch.setattr(Method, "on_before_optimizer_step", interrupted)
    arguments = ["fit", "--config", "configs/demo.yaml", *TINY, "--run.dir", str(tmp_path), "--run.name", "r"]
    assert run([*arguments, "--trainer.limit_val_batches", "0", "--trainer.max_steps", "50"]) == 85
    assert steps == [0, 1, 2, 3]
    assert {path.name for path in (tmp_path / "r" / "checkpoints").glob("*.ckpt")} == {"step-4.ckpt", "last.ckpt"}
    assert not (tmp_path / "queued").exists()
    assert not list((tmp_path / "r").rglob("hpc_ckpt*"))


@pytest.mark.parametrize(
    ("subcommand", "number", "code"),
    [
        ("validate", signal.SIGTERM, 143),
        ("test", signal.SIGUSR2, 85),
        ("predict", signal.SIGTERM, 143),
    ],
)
def test_a_signal_while_images_are_evaluated_or_embedded_ends_with_its_code(
    subcommand, number, code, tmp_path, monkeypatch, capsys
):
    step = "predict_step" if subcommand == "predict" else "validation_step"
    inner = getattr(Method, step)

    def interrupted(self, batch, batch_idx, dataloader_idx=0):
        os.kill(os.getpid(), number)
        return inner(self, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(Method, step, interrupted)
    before = signal.getsignal(number)
    arguments = ["--config", "configs/eval.yaml", "--model", "RawPixels", "--trainer.accelerator", "cpu"]
    assert run([subcommand, *arguments, "--run.dir", str(tmp_path), "--run.name", "r"]) == code
    assert "stopped by a signal" in capsys.readouterr().err
    assert not (tmp_path / "r" / "LOCK").exists()
    assert not (tmp_path / "r" / "results.json").exists()
    assert signal.getsignal(number) == before


def test_an_error_of_ours_in_a_training_step_keeps_its_traceback(tmp_path, monkeypatch, capsys):
    def broken(self, batch, batch_idx):
        return torch.empty(0).view(3)

    def misused(self, batch, batch_idx):
        return int("not a number")

    arguments = ["--config", "configs/demo.yaml", *TINY, "--trainer.limit_val_batches=0"]
    for number, (step, kind) in enumerate([(broken, RuntimeError), (misused, ValueError)]):
        monkeypatch.setattr("ssl_lightning.methods.DeepCluster.training_step", step)
        assert fit(tmp_path, *arguments, "--run.name", f"broken{number}") == 1
        lines = capsys.readouterr().err.splitlines()
        assert "Traceback (most recent call last):" in lines
        assert lines[-2].startswith(f"{kind.__name__}: ")


def test_a_missing_pack_names_the_variable(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path))
    overlay = ["--config", "configs/demo.yaml", "--config", "configs/data/cifar10.yaml"]
    line = rejected(capsys, "fit", *overlay, "--run.dir", str(tmp_path / "runs"))
    assert "SSL_LIGHTNING_DATA" in line
    assert "cifar10.tar.xz" in line


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_a_checkpoint_in_place_of_a_configuration_is_one_line(form, tmp_path, capsys):
    checkpoint = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.rand(100)}}, checkpoint)
    given = form.format(checkpoint).split()
    assert run(["fit", "--config", "configs/demo.yaml", *given, "--run.dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ssl-lightning: error: found {checkpoint}, which is no YAML file")
    assert "--ckpt_path" in line


def test_a_checkpoint_of_another_architecture_is_rejected_and_the_run_kept(tmp_path, capsys):
    first = ["--config", "configs/demo.yaml", "--run.dir", str(tmp_path)]
    assert run(["fit", *first, "--run.name", "first", *TINY]) == 0
    checkpoint = tmp_path / "first" / "checkpoints" / "step-1.ckpt"
    before = checkpoint.read_bytes()
    (tmp_path / "foreign.ckpt").write_bytes(before)
    arguments = [*TINY, "--model.backbone.width", "16", "--run.name", "second"]
    line = rejected(capsys, "fit", *first, *arguments, "--ckpt_path", str(tmp_path / "foreign.ckpt"))
    assert "foreign.ckpt that do not fit DeepCluster: backbone.body." in line
    assert "Error(s)" not in line
    assert "torch.Size" not in line
    line = rejected(capsys, "fit", *first, *arguments, "--ckpt_path", str(checkpoint))
    assert "model.init_args.backbone.init_args.width 8 -> 16" in line
    assert checkpoint.read_bytes() == before


NOT_EVALUATED = ["--trainer.limit_val_batches", "0"]
SMALL_DIGITS = ["--config", "configs/data/digits.yaml", "--data.image_size", "8"]
SMALL_SHAPES = ["--config", "configs/data/synthetic.yaml", "--data.image_size", "8"]


@pytest.mark.parametrize(
    ("method", "samples"),
    [
        ("deepcluster", "200"),
        ("deepcluster_v2", "200"),
        ("deepcluster_v2", "1438"),  # as many images as before, but others
        ("instance_recognition", "200"),
        ("local_aggregation", "200"),
    ],
)
def test_a_run_begins_with_the_weights_of_one_on_other_images_and_with_nothing_of_its_rows(method, samples, tmp_path):
    config = ["--config", f"configs/{method}.yaml"]
    small = [*TINY, *SMALLER[method], *NOT_EVALUATED, "--run.dir", str(tmp_path)]
    assert run(["fit", *config, *SMALL_DIGITS, *small, "--run.name", "first"]) == 0
    saved = tmp_path / "first" / "checkpoints" / "step-1.ckpt"
    (tmp_path / "alone.ckpt").write_bytes(saved.read_bytes())
    others = [*config, *SMALL_SHAPES, "--data.samples", samples, *small, "--model.optimizer.lr", "1e-9"]
    assert run(["fit", *others, "--run.name", "second", "--ckpt_path", str(tmp_path / "alone.ckpt")]) == 0
    assert run(["fit", *others, "--run.name", "third", "--run.start_from", str(saved)]) == 0
    before = torch.load(saved, weights_only=True)
    for name in ("second", "third"):
        after = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        first = next(name for name in before["state_dict"] if name.endswith("weight"))
        assert torch.allclose(after["state_dict"][first], before["state_dict"][first], atol=1e-4)
        assert after["global_step"] == 1
        for memory in after["per_sample_state"].values():
            assert len(memory["rows"]) == int(samples)
            assert memory.get("version", 1) == 1
        if method == "instance_recognition":
            partition = [kept["state_dict"]["partition"] for kept in (after, before)]
            assert not torch.equal(*partition)


def test_a_run_that_begins_with_trained_weights_is_not_called_untrained(tmp_path, capsys):
    small = ["--config", "configs/demo.yaml", *TINY, *SMALLER["demo"], "--run.dir", str(tmp_path)]
    assert run(["fit", *small, "--run.name", "first"]) == 0
    saved = str(tmp_path / "first" / "checkpoints" / "last.ckpt")
    assert "untrained" in capsys.readouterr().out
    assert run(["fit", *small, "--run.name", "second", "--run.start_from", saved]) == 0
    for said in (capsys.readouterr().out, (tmp_path / "second" / "report" / "index.html").read_text()):
        assert re.search(r"^start  ", said, re.MULTILINE)
        assert "untrained" not in said


def test_a_checkpoint_of_other_images_is_rejected_with_the_way_that_works(tmp_path, capsys):
    small = ["--config", "configs/demo.yaml", *TINY, *SMALLER["demo"], *NOT_EVALUATED, "--run.dir", str(tmp_path)]
    assert run(["fit", *small, "--run.name", "first"]) == 0
    saved = str(tmp_path / "first" / "checkpoints" / "step-1.ckpt")
    others = [*small, *SMALL_SHAPES, "--data.samples", "200", "--run.name", "second"]
    line = rejected(capsys, "fit", *others, "--ckpt_path", saved)
    assert f"--run.start_from {saved}" in line
    allowed = ["--resume.allow_config_change", "true"]
    line = rejected(capsys, "fit", *others, *allowed, "--ckpt_path", saved)
    assert "data.fingerprint" in line
    assert "--run.start_from" in line
    line = rejected(capsys, "fit", *others, "--ckpt_path", saved, "--run.start_from", saved)
    assert "expected one of them" in line
    line = rejected(capsys, "predict", *others, "--run.start_from", saved)
    assert f"--ckpt_path {saved}" in line
    assert run(["fit", *others, "--run.name", "third", "--run.start_from", saved]) == 0


def test_another_checkpoint_to_begin_with_is_another_input_and_the_same_one_may_have_gone(tmp_path, capsys, caplog):
    small = ["--config", "configs/demo.yaml", *TINY, *SMALLER["demo"], *NOT_EVALUATED, "--run.dir", str(tmp_path)]
    two = [*small, "--trainer.max_steps", "2", "--run.save_every_n_steps", "1"]
    assert run(["fit", *two, "--run.name", "first"]) == 0
    both = [tmp_path / "first" / "checkpoints" / f"step-{step}.ckpt" for step in (1, 2)]
    one, other = (str(tmp_path / f"{path.stem}.ckpt") for path in both)
    for path, copy in zip(both, (one, other), strict=True):
        Path(copy).write_bytes(path.read_bytes())
    begun = ["fit", *two, "--run.name", "begun"]
    assert run([*begun, "--ckpt_path", one]) == 0
    line = rejected(capsys, *begun, "--ckpt_path", other)
    assert "has finished with other inputs: start_from_sha256" in line
    assert "start_from_sha256" in rejected(capsys, *begun)
    Path(one).unlink()
    assert run([*begun, "--ckpt_path", one]) == 0
    assert "nothing to do" in caplog.text
    assert run([*begun, "--ckpt_path", str(tmp_path / "begun" / "checkpoints" / "last.ckpt")]) == 0
    assert "an earlier checkpoint" in rejected(
        capsys, *begun, "--ckpt_path", str(tmp_path / "begun" / "checkpoints" / "step-1.ckpt")
    )
    for name in ("done.json", "checkpoints/step-2.ckpt", "checkpoints/step-2.json"):
        (tmp_path / "begun" / name).unlink()  # as if it had been killed after its first step
    assert "was started with other inputs: start_from_sha256" in rejected(capsys, *begun, "--run.start_from", other)
    assert run([*begun, "--run.start_from", one]) == 0
    assert "from step-1.ckpt" in caplog.text
    assert "check --ckpt_path" in rejected(capsys, "fit", *two, "--run.name", "third", "--run.start_from", one)


def test_a_run_that_goes_on_from_a_checkpoint_of_another_notes_which(tmp_path, capsys):
    small = ["--config", "configs/demo.yaml", *TINY, *SMALLER["demo"], *NOT_EVALUATED, "--run.dir", str(tmp_path)]
    two = [*small, "--trainer.max_steps", "2", "--run.save_every_n_steps", "1"]
    assert run(["fit", *two, "--run.name", "first"]) == 0
    one, other = (str(tmp_path / "first" / "checkpoints" / f"step-{step}.ckpt") for step in (1, 2))
    assert run(["fit", *two, "--run.name", "second", "--ckpt_path", one]) == 0
    assert json.loads((tmp_path / "second" / "done.json").read_text())["steps"] == 2
    inputs = json.loads((tmp_path / "second" / "run.json").read_text())["inputs"]
    assert inputs["ckpt_path_sha256"] == sha256_of(Path(one))
    assert "ckpt_path_sha256" in rejected(capsys, "fit", *two, "--run.name", "second", "--ckpt_path", other)
    end = str(tmp_path / "second" / "checkpoints" / "step-2.ckpt")
    assert "no step is left" in rejected(capsys, "fit", *two, "--run.name", "third", "--ckpt_path", end)


def test_checkpoints_may_be_farther_apart_than_epochs(tmp_path, capsys):
    small = ["--config", "configs/demo.yaml", *TINY, *SMALLER["demo"], *NOT_EVALUATED, "--run.dir", str(tmp_path)]
    four = ["--trainer.max_epochs", "4", "--trainer.max_steps", "-1", "--trainer.limit_train_batches", "2"]
    rare = ["fit", *small, *four, "--run.name", "rare", "--run.save_every_n_epochs"]
    assert "found run.save_every_n_epochs=0; expected 1" in rejected(capsys, *rare, "0")
    for steps in ("0", "-5"):
        line = rejected(capsys, "fit", *small, *four, "--run.save_every_n_steps", steps)
        assert f"found run.save_every_n_steps={steps}; expected 1 or more" in line
    assert run([*rare, "3"]) == 0
    checkpoints = (tmp_path / "rare" / "checkpoints").glob("step-*.ckpt")
    assert {path.name for path in checkpoints} == {"step-6.ckpt", "step-8.ckpt"}


def test_two_runs_in_one_folder_are_rejected_with_code_75(tmp_path, capsys):
    folder = tmp_path / "busy"
    folder.mkdir()
    started = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19]
    (folder / "LOCK").write_text(f"{os.uname().nodename} {os.getppid()} {started}\n")
    assert fit(tmp_path, "--config", "configs/demo.yaml", "--run.name", "busy", *TINY) == 75
    assert "LOCK" in capsys.readouterr().err
    (folder / "LOCK").write_text(f"{os.uname().nodename} 999999999 1\n")  # left behind by a process that is gone
    assert fit(tmp_path, "--config", "configs/demo.yaml", "--run.name", "busy", *TINY) == 0


def test_a_foreign_module_named_in_yaml_is_not_imported(tmp_path):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass\n")
    config = tmp_path / "evil.yaml"
    config.write_text("model:\n  class_path: evil_module.Net\n")
    command = [
        sys.executable,
        "-m",
        "ssl_lightning",
        "fit",
        "--config",
        "configs/data/digits.yaml",
        "--config",
        str(config),
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "SSL_LIGHTNING_PLUGINS" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_the_error_of_a_foreign_module_begins_with_what_would_allow_it(capsys):
    line = rejected(capsys, "fit", "--config", "configs/demo.yaml", "--model", "my_lab.Rotation")
    start = "found my_lab.Rotation, which may not be imported; name a package of your own in the environment variable "
    assert line.startswith(f"ssl-lightning: error: {start}SSL_LIGHTNING_PLUGINS to allow it")
    assert "set_parsing_settings" not in line
    other = rejected(capsys, "fit", "--config", "configs/demo.yaml", "--data.path", "bad\udcff")
    assert "found --data.path, which is not known there" in other
    assert "SSL_LIGHTNING_PLUGINS" not in other


def test_help_answers_at_once_without_torch():
    code = "import sys; sys.argv = ['ssl-lightning', '--help']; from ssl_lightning.entry import main; main(); "
    code += "assert 'torch' not in sys.modules"
    before = children_seconds()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "validate" in done.stdout
    assert children_seconds() - before < 3


def test_help_of_a_subcommand_answers_soon():
    before = children_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "ssl_lightning", "fit", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--trainer.max_epochs" in done.stdout
    assert children_seconds() - before < 30  # 10 on an idle machine


def children_seconds():
    """Processor time of processes that have ended, not of the clock: other work does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_weights_and_biases_runs_offline_beside_the_table(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    overlay = ["--config", "configs/demo.yaml", "--config", "configs/shared/wandb.yaml"]
    assert fit(tmp_path, *overlay, "--run.name", "wandb", *TINY) == 0
    (sent,) = (tmp_path / "wandb" / "wandb").glob("offline-run-*/*.wandb")
    names = (b"num_clusters", b"eval/knn/top1", b"cluster/seconds", b"report/curves", b"clusters")
    names += (b"checkpoint-wandb", b"backbone-wandb", b"assignments-wandb", b"data_fingerprint")
    until = time.monotonic() + 60  # another process writes the file, and on a busy machine it is behind
    while (missing := [name for name in names if name not in sent.read_bytes()]) and time.monotonic() < until:
        time.sleep(0.1)
    assert missing == []
    assert (tmp_path / "wandb" / "metrics.csv").is_file()
    weights = tmp_path / "wandb" / "wandb" / "backbone.safetensors"
    network = load_model(tmp_path / "wandb" / "checkpoints" / "last.ckpt").backbone.body
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in load_file(weights).items())
    network.load_state_dict(load_file(weights))  # under the names of torchvision, and all of them
    known = json.loads((tmp_path / "wandb" / "run.json").read_text())["wandb_id"]
    (tmp_path / "wandb" / "done.json").unlink()  # as if it had been killed at its end
    assert fit(tmp_path, *overlay, "--run.name", "wandb", *TINY) == 0
    assert json.loads((tmp_path / "wandb" / "run.json").read_text())["wandb_id"] == known
    folders = list((tmp_path / "wandb" / "wandb").glob("offline-run-*"))
    assert all(folder.name.endswith(known) for folder in folders)


def test_evaluating_with_weights_and_biases_stays_in_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    evaluate = [
        "validate",
        "--config",
        "configs/eval.yaml",
        "--config",
        "configs/shared/wandb.yaml",
        "--model",
        "RawPixels",
    ]
    before = set(ROOT.glob("wandb"))
    assert run([*evaluate, "--run.dir", str(tmp_path), "--run.name", "evaluated", "--trainer.accelerator", "cpu"]) == 0
    (sent,) = (tmp_path / "evaluated" / "wandb").glob("offline-run-*/*.wandb")
    assert b"eval/knn/top1" in sent.read_bytes()
    assert set(ROOT.glob("wandb")) == before


def test_a_broken_weights_and_biases_costs_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    overlay = ["--config", "configs/demo.yaml", "--config", "configs/shared/wandb.yaml"]
    online = ["--trainer.logger.mode", "online", "--trainer.logger.timeout", "2"]
    assert fit(tmp_path, *overlay, *online, "--run.name", "broken", *TINY) == 0
    assert sum("Weights & Biases" in record.message for record in caplog.records) == 1
    assert (tmp_path / "broken" / "done.json").is_file()


WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pyarrow", "faiss", "wandb"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
"""


def test_training_needs_none_of_the_packages_that_only_some_parts_use(tmp_path):
    """Machines with accelerators may lack them."""
    options = ["--config", "configs/deepcluster.yaml", *TINY, "--run.dir", str(tmp_path)]
    options += ["--trainer.callbacks", "[{class_path: Recluster, init_args: {clusterer: KMeans}}]"]
    program = f"from ssl_lightning.entry import run; sys.exit(run({['fit', *options]!r}))"
    done = subprocess.run([sys.executable, "-c", WITHOUT + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_clusters_for_the_next_stage_need_no_table_for_people(tmp_path):
    options = ["--config", "configs/clusterfit/2_cluster.yaml", "--trainer.accelerator", "cpu"]
    options += ["--trainer.callbacks.path", str(tmp_path / "edge"), "--trainer.callbacks.num_clusters", "8"]
    options += ["--trainer.enable_progress_bar", "false", "--run.dir", str(tmp_path)]
    program = f"from ssl_lightning.entry import run; sys.exit(run({['predict', *options]!r}))"
    done = subprocess.run([sys.executable, "-c", WITHOUT + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(Clustering.load(tmp_path / "edge.safetensors")[0].sizes.sum()) == 1438
    assert not (tmp_path / "edge.parquet").exists()
    assert "found no pyarrow" in done.stdout + done.stderr
