"""A run, a checkpoint or an artifact is opened by one call, and what is missing is one line."""

import builtins
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.inspect import clusters, features, load_run


def test_a_run_has_its_method_images_metrics_and_probes(deepcluster):
    run = load_run(deepcluster)
    assert (type(run.method).__name__, run.step, run.name) == ("DeepCluster", 2, "deepcluster")
    assert len(run.data.training) == len(run.data.labels) == 1438
    assert set(run.metrics.step) >= {0, 2}
    assert run.metrics["train/loss"].dropna().gt(0).all()
    last = run.probes.loc["knn/top1"]
    logged = run.metrics["eval/knn/top1"].dropna().tolist()
    assert (last["untrained"], last["last"]) == pytest.approx((logged[0], logged[-1]))
    assert run.missing == []
    assert str(run).splitlines() == ["deepcluster: DeepCluster, step 2, backbone", "1,438 images, 10 classes"]


def test_a_checkpoint_is_opened_like_its_run(deepcluster):
    run, other = load_run(deepcluster), load_run(deepcluster / "checkpoints" / "step-2.ckpt")
    assert other.path == run.path.resolve()
    assert torch.equal(features(run).values, features(other).values)


def test_a_copied_checkpoint_has_its_images_and_clusters_and_names_what_it_lacks(deepcluster, tmp_path):
    shutil.copy(deepcluster / "checkpoints" / "step-2.ckpt", tmp_path / "mine.ckpt")
    run = load_run(tmp_path / "mine.ckpt")
    assert (run.name, run.path, len(run.metrics), len(run.probes)) == ("mine.ckpt", None, 0, 0)
    assert run.data.num_samples == 1438
    assert int(clusters(run).sizes.sum()) == 1438
    (line,) = run.missing
    assert line.endswith("mine.ckpt lies in no folder of a run: no metrics, no probes, no saved clusters")


def test_an_artifact_is_opened_like_a_checkpoint(deepcluster, tmp_path, monkeypatch):
    class Artifact:
        version = "v1"

        def download(self, root):
            shutil.copytree((deepcluster / "checkpoints").resolve(), root, symlinks=True)
            for path in (tmp_path / "runs").rglob("last.ckpt"):
                path.unlink()

    class Api:
        def __init__(self, timeout):
            pass

        def artifact(self, name):
            assert name == "me/digits/checkpoint-x:last"
            return Artifact()

    monkeypatch.setattr("wandb.Api", Api)
    monkeypatch.chdir(tmp_path)
    run = load_run("wandb:me/digits/checkpoint-x:last")
    assert (run.step, run.data.num_samples) == (2, 1438)
    with pytest.raises(UsageError, match="found wandb:nothing; expected wandb:"):
        load_run("wandb:nothing")


def test_a_run_that_has_not_finished_says_so_in_one_line(deepcluster, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(deepcluster, folder, symlinks=True)
    (folder / "done.json").unlink()
    facts = json.loads((folder / "run.json").read_text())
    facts["sessions"][-1] |= {"end": "interrupted", "exit_code": 130}
    (folder / "run.json").write_text(json.dumps(facts))
    assert load_run(folder).missing == ["the run has not finished (stopped): these are the weights of step 2"]
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(
        DataError, match=r"found no checkpoint in .*cut \(stopped, interrupted\); expected checkpoints/"
    ):
        load_run(folder)


def test_no_run_and_no_checkpoint_are_one_line(tmp_path):
    with pytest.raises(DataError, match="which is no folder of a run; expected one with checkpoints/"):
        load_run(tmp_path)
    with pytest.raises(DataError, match="found no checkpoint at"):
        load_run(tmp_path / "none.ckpt")


def test_images_that_have_moved_are_named_by_an_argument(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(256, size=(140, 12, 10, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:03}.png")
    options = ["--config", "data/folder", "--data.path", str(tmp_path / "images"), "--model.num_clusters", "12"]
    folder = trained("mine", "deepcluster", *options, "--data.image_size", "12")
    run = load_run(folder)
    assert run.missing == ["no image has a label: no purity, no accuracy of neighbors"]
    assert int(clusters(run).sizes.sum()) == 140
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    run = load_run(folder)
    (line,) = run.missing
    assert line.startswith(f"the images cannot be opened: {tmp_path / 'images'} not found")
    assert "140" not in str(run)
    assert len(run.metrics)
    section = f"data: {{class_path: ssl_lightning.data.UncuratedImages, init_args: {{path: {tmp_path / 'elsewhere'}}}}}"
    (tmp_path / "moved.yaml").write_text(section)
    run = load_run(folder, data=str(tmp_path / "moved.yaml"))
    assert run.data.preprocessing == run.method.preprocessing
    assert int(clusters(run).sizes.sum()) == 140
    with pytest.raises(DataError, match=r"found 1438 images \(\w+\) and clusters of 140"):
        clusters(load_run(folder, data="data/digits"))


def test_tables_without_pandas_name_the_command_that_installs_it(deepcluster, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"found no pandas, .*pip install .*\[notebooks\]"):
        _ = load_run(deepcluster).metrics
