"""A long-tailed selection of a labeled split: its sizes, its images, its probe sets, and the metrics of a run on it."""

import csv
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssl_lightning.clustering import Clustering
from ssl_lightning.data import CuratedImages, Subset, UncuratedImages, UnionImages
from ssl_lightning.data.long_tail import long_tailed_rows
from ssl_lightning.entry import run

NAMES = ("ape", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """48 training and 12 test images of each of four classes, as noise around a color of the class."""
    folder, rng = tmp_path_factory.mktemp("long-tail") / "animals", np.random.default_rng(0)
    for split, count in (("train", 48), ("test", 12)):
        for place, name in enumerate(NAMES):
            (folder / split / name).mkdir(parents=True)
            for row in range(count):
                pixels = rng.integers(0, 120, (8, 8, 3)) + 40 * np.eye(4)[place, :3]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{row}.png")
    return str(folder)


def test_cifar10_lt_has_the_sizes_of_the_literature():
    labels = torch.arange(10).repeat(5000)
    rows = long_tailed_rows(labels, 100.0)
    assert labels[rows].bincount().tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert len(rows) == 12406
    assert torch.equal(rows, rows.unique())


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(1, 50), st.integers(0, 100))
def test_sizes_decrease_and_a_longer_tail_is_a_part_of_a_shorter_one(sizes, imbalance, seed):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = torch.cat([labels, torch.tensor([-1, -1])])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    rows = long_tailed_rows(labels, float(imbalance))
    found = labels[rows].bincount(minlength=len(sizes)).tolist()
    wanted = [max(sizes) * imbalance ** (-place / (len(sizes) - 1)) for place in range(len(sizes))]
    for size, count, exact in zip(sizes, found, wanted, strict=True):
        assert 1 <= count <= size
        assert count in (1, size) or exact - 1 - 1e-6 < count <= exact + 1e-6
    assert set(long_tailed_rows(labels, imbalance + 10.0).tolist()) <= set(rows.tolist())


def test_which_images_are_chosen_is_random_and_fixed():
    labels = torch.arange(2).repeat(1000)
    rows = long_tailed_rows(labels, 10.0)
    tail = rows[labels[rows] == 1]
    assert len(tail) == 100
    assert abs(float(tail.float().mean()) - 1000) < 4 * 577 / 100**0.5
    assert torch.equal(rows, long_tailed_rows(labels, 10.0))


def test_the_data_have_the_tail_and_the_probe_sets_are_whole(animals):
    data = CuratedImages(path=animals, imbalance=16.0)
    assert data.class_sizes == {"ape": 48, "bee": 19, "cat": 7, "dog": 3}
    assert [len(split) for split in data.probes["animals"]] == [192, 48]
    assert data.fingerprint != CuratedImages(path=animals).fingerprint
    assert CuratedImages(path=animals, imbalance=1.0).fingerprint == CuratedImages(path=animals).fingerprint
    union = UnionImages(sources=[data, UncuratedImages(path=f"{animals}/test")])
    assert len(union.training) == 77 + 48
    assert union.class_sizes == data.class_sizes


def test_a_collection_without_labels_is_not_opened_for_them():
    assert UncuratedImages(path="./nowhere").class_sizes == {}
    assert CuratedImages(path="./nowhere").class_sizes == {}


def test_mistakes_are_one_line(animals):
    with pytest.raises(ValueError, match=r"found data\.imbalance=0\.5; expected at least 1"):
        CuratedImages(path=animals, imbalance=0.5)
    with pytest.raises(ValueError, match=r"found 5 images of 1 classes for data\.imbalance=2"):
        long_tailed_rows(torch.zeros(5, dtype=torch.int64), 2.0)


def fit(folder, animals, *options, name="tail"):
    given = ["--config", "simclr", "--data", "CuratedImages", "--data.path", animals, "--data.imbalance", "16"]
    given += ["--model.backbone.width", "8", "--model.hidden", "[16]", "--model.projection", "8"]
    given += [
        "--data.image_size",
        "8",
        "--data.batch_size",
        "16",
        "--trainer.max_steps",
        "2",
        "--data.num_workers",
        "0",
    ]
    given += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert run(["fit", *given, *options, "--run.dir", str(folder), "--run.name", name]) == 0
    with (folder / name / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_reports_head_and_tail_by_the_classes_of_its_images(animals, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    with caplog.at_level("INFO"):
        rows = fit(tmp_path, animals)
    line = (
        "probe set animals: top1 is also that of head (1 class of 48 to 48 images: ape) and tail (1 class of 3 to 3 "
        "images: dog), by the training images"
    )
    assert caplog.text.count(line) == 1
    evaluated = [row for row in rows if row.get("eval/knn/top1")]
    for metric in ("knn", "linear"):
        for row in evaluated:
            head, tail = (float(row[f"eval/{metric}/top1_{group}"]) for group in ("head", "tail"))
            assert 0 <= head <= 1
            assert 0 <= tail <= 1
            assert {round(12 * head, 6) % 1, round(12 * tail, 6) % 1} == {0.0}  # twelve test images of each
    balanced = fit(tmp_path, animals, "--data.imbalance", "1", name="balanced")
    assert not any("head" in name for name in balanced[0])


def test_a_subset_of_a_long_tail_is_measured_after_it(animals, tmp_path):
    data = CuratedImages(path=animals, imbalance=16.0)
    labels = torch.where(data.training.labels == 0, -1, 0)
    Clustering.without_features(labels, 1).save(tmp_path / "rest.safetensors", {"data": data.fingerprint})
    rest = CuratedImages(path=animals, imbalance=16.0, subset=Subset(str(tmp_path / "rest.safetensors")))
    assert rest.class_sizes == {"ape": 0, "bee": 19, "cat": 7, "dog": 3}
