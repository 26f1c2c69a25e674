"""embed in parts: features are those of one pass to the byte, and a finished part is not computed again."""

import shutil

import lightning.pytorch as pl
import pytest
import torch

from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.commands import embed_parts
from ssl_lightning.data import UncuratedImages
from ssl_lightning.entry import run
from ssl_lightning.methods import DeepCluster
from ssl_lightning.models import ResNet18
from tests.data.manifest.small_pools import image, write_folder


@pytest.fixture
def folder(tmp_path, monkeypatch, capsys):
    """Checkpoints and a manifest of 100 images of several sizes, one of which has been damaged since."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ssl-lightning"])
    write_folder(tmp_path / "images", {f"{number:03d}.png": image(number, 10 + number % 40) for number in range(100)})
    assert run(["data", "build", "./images", "--out", "pool.parquet", "--workers", "1"]) == 0
    (tmp_path / "images" / "005.png").write_bytes(b"\x89PNG")
    (tmp_path / "data.yaml").write_text(
        "data:\n  class_path: ssl_lightning.data.UncuratedImages\n"
        "  init_args: {path: ./pool.parquet, eval_batch_size: 16, num_workers: 0}\n"
    )
    preprocessing = UncuratedImages(path="./pool.parquet", image_size=16).preprocessing
    for seed in (1, 2):
        pl.seed_everything(seed, verbose=False)
        model = DeepCluster(12, ResNet18(8), preprocessing=preprocessing)
        model(torch.randn(8, 3, 16, 16))
        content = {"state_dict": model.state_dict(), "global_step": seed, "epoch": 0}
        model.on_save_checkpoint(content)
        DurableCheckpointIO().save_checkpoint(content, tmp_path / f"step-{seed}.ckpt")
    capsys.readouterr()
    return tmp_path


def embed(out, *options, step=1):
    return run(["embed", f"step-{step}.ckpt", out, "--data", "data.yaml", "--device", "cpu", *options])


@pytest.fixture
def made(monkeypatch):
    """First rows of the parts that this process computes."""
    rows, make = [], embed_parts._make
    monkeypatch.setattr(embed_parts, "_make", lambda task, count: (rows.append(task.start), make(task, count)))
    return rows


def test_processes_and_jobs_give_the_bytes_of_one_pass(folder, capsys):
    assert embed("whole.safetensors") == 0
    assert embed("one.safetensors", "--workers", "1") == 0
    assert embed("two.safetensors", "--workers", "2") == 0
    for job in ("2/3", "3/3", "1/3"):
        assert embed("jobs.safetensors", "--workers", "1", "--part", job) == 0
    assert "4 parts, 2 made now; next, after all jobs: the same command without --part" in capsys.readouterr().out
    assert not (folder / "jobs.safetensors").exists()
    assert embed("jobs.safetensors") == 0
    contents = {(folder / f"{name}.safetensors").read_bytes() for name in ("whole", "one", "two", "jobs")}
    assert len(contents) == 1
    assert FeatureFile.load(folder / "whole.safetensors").rows.tolist() == [row for row in range(100) if row != 5]
    assert not list(folder.glob("*.safetensors.parts"))


def test_a_finished_part_is_not_computed_again(folder, made):
    assert embed("jobs.safetensors", "--workers", "1", "--part", "2/2") == 0
    assert made == [32, 96]
    assert embed("jobs.safetensors", "--workers", "1") == 0
    assert made == [32, 96, 0, 64]


def test_parts_of_another_checkpoint_or_of_other_images_are_not_used(folder, made):
    assert embed("a.safetensors", "--workers", "1", "--part", "1/1") == 0
    shutil.copytree("a.safetensors.parts", "b.safetensors.parts")
    assert embed("a.safetensors", "--workers", "1", step=2) == 0
    (folder / "images" / "005.png").write_bytes(image(777))
    assert run(["data", "build", "./images", "--out", "pool.parquet", "--workers", "1"]) == 0
    assert embed("b.safetensors", "--workers", "1") == 0
    assert made == 3 * [0, 32, 64, 96]


def test_too_many_unreadable_images_are_an_error_until_they_are_repaired(folder, capsys, made):
    before = {number: (folder / "images" / f"{number:03d}.png").read_bytes() for number in range(33, 60)}
    for number in before:
        (folder / "images" / f"{number:03d}.png").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_lightning.data.manifest.images._check_content", lambda *_: None)
        assert embed("a.safetensors", "--workers", "1") == 65
    assert "28 of 100 training images" in capsys.readouterr().err
    assert len(list((folder / "a.safetensors.parts").iterdir())) == 2  # of readable images alone
    for number, content in before.items():
        (folder / "images" / f"{number:03d}.png").write_bytes(content)
    assert embed("a.safetensors", "--workers", "1") == 0
    assert made == [0, 32, 64, 96, 0, 32]
    assert len(FeatureFile.load("a.safetensors").rows) == 99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--part", "0/3"), "found part='0/3'; expected i/n"),
        (("--workers", "0"), "found workers=0"),
        (("--engine", "dask"), "found engine='dask'"),
    ],
)
def test_a_wrong_option_is_one_line(folder, capsys, options, message):
    assert embed("a.safetensors", *options) == 64
    assert message in capsys.readouterr().err
