"""data curate as it is typed: balanced subsets of clusters, baselines, and subsets of subsets."""

import numpy as np
import pytest
import torch
from pyarrow import parquet

from ssl_lightning.clustering import KMeans
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.data import Subset, UncuratedImages
from ssl_lightning.entry import run
from tests.data.manifest.small_pools import image, write_folder

SIZES = (60, 20, 8, 2)


@pytest.fixture
def pool(tmp_path, monkeypatch, capsys):
    """Ninety images in four groups of very different sizes, with features; one image has none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ssl-lightning"])
    groups = np.repeat(np.arange(4), SIZES)
    names = [f"{group}-{row:02}.png" for row, group in enumerate(groups)]
    write_folder(tmp_path / "images", {name: image(row) for row, name in enumerate(names)} | {"9-none.png": image(99)})
    assert run(["data", "build", "./images", "--out", "pool.parquet", "--workers", "1"]) == 0
    rng = np.random.default_rng(0)
    features = torch.from_numpy(np.eye(4)[groups] * 10 + rng.normal(size=(90, 4))).float()
    data = UncuratedImages(path="./pool.parquet").training
    unknown = torch.full((90,), -1)
    FeatureFile(features, torch.arange(90), unknown, {"data": data.fingerprint}).save("features.safetensors")
    capsys.readouterr()
    return tmp_path


def curated(*options, out="curated.parquet", size=20):
    command = ["data", "curate", "pool.parquet", "--features", "features.safetensors", "--out", out]
    assert run([*command, "--size", str(size), *options]) == 0
    names = {row["sample_id"]: row["member"] for row in parquet.read_table("pool.parquet").to_pylist()}
    return {names[row["sample_id"]]: row for row in parquet.read_table(out).to_pylist()}


def kept_of_groups(found):
    return [sum(row["kept"] for name, row in found.items() if name[0] == str(group)) for group in range(4)]


@pytest.mark.parametrize("method", ["flat", "hierarchical"])
def test_clusters_have_equal_shares_as_far_as_they_have_images(pool, method, capsys):
    found = curated("--method", method, "--num_clusters", "4")
    assert sorted(kept_of_groups(found), reverse=True) in ([6, 6, 6, 2], [7, 6, 5, 2])
    assert kept_of_groups(found)[3] == 2
    assert found["9-none.png"] | {"sample_id": 0} == {
        "sample_id": 0,
        "kept": False,
        "group": -1,
        "reason": "without features",
    }
    shown = capsys.readouterr().out
    assert "91 images, 20 kept: 70 not sampled, 1 without features" in shown
    assert "4 clusters of 2 to 60 images, 2 to 6 of each kept" in shown


def test_flat_clusters_are_those_of_one_k_means_without_resampling(pool):
    found = curated("--method", "flat", "--num_clusters", "3", "--seed", "5")
    features = FeatureFile.load("features.safetensors").features
    expected = KMeans("cosine", "k-means++", 50)(features, 3, number(5, Purpose.CLUSTERING, 0, view=3)).labels
    assert [row["group"] for name, row in sorted(found.items()) if name != "9-none.png"] == expected.tolist()


def test_a_uniform_sample_follows_the_sizes(pool):
    found = curated("--method", "uniform", size=45)
    assert sum(kept_of_groups(found)) == 45
    assert kept_of_groups(found)[0] > 20
    assert {row["group"] for row in found.values()} == {-1}


def test_only_images_of_an_earlier_subset_are_sampled_and_the_result_is_trained_on(pool):
    first = curated("--method", "uniform", size=45, out="first.parquet")
    found = curated("--method", "flat", "--num_clusters", "3", "--subset", "first.parquet", size=15)
    kept = {name for name, row in found.items() if row["kept"]}
    assert len(kept) == 15
    assert kept <= {name for name, row in first.items() if row["kept"]}
    assert sum(row["reason"] == "left out before" for row in found.values()) == 46  # the image without features too
    data = UncuratedImages(path="./pool.parquet", subset=Subset("curated.parquet"))
    assert {name.rpartition("/")[2] for name in data.training.names} == kept


def test_equal_seeds_give_equal_files_and_a_large_subset_is_all_images(pool, caplog):
    curated("--num_clusters", "4", "--choice", "random", out="a.parquet")
    curated("--num_clusters", "4", "--choice", "random", out="b.parquet")
    assert (pool / "a.parquet").read_bytes() == (pool / "b.parquet").read_bytes()
    found = curated("--num_clusters", "4", size=200)
    assert sum(row["kept"] for row in found.values()) == 90
    assert "found 90 images for a subset of 200: all are kept" in caplog.text


FEATURES = ["pool.parquet", "--features", "features.safetensors"]


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["pool.parquet", "--out", "c.parquet"], 64, "found no manifest or no features"),
        ([*FEATURES, "--out", "c.csv", "--size", "3"], 64, "found out='c.csv'"),
        ([*FEATURES, "--out", "c.parquet"], 64, "found a subset of 0 images"),
        ([*FEATURES, "--out", "c.parquet", "--size", "3", "--levels", "[9]", "--num_clusters", "9"], 64, "k below 9"),
        ([*FEATURES, "--out", "c.parquet", "--size", "3", "--method", "flat", "--levels", "[9]"], 64, "found --levels"),
        ([*FEATURES, "--out", "c.parquet", "--size", "3", "--method", "flat", "--rounds", "3"], 64, "found --rounds"),
        ([*FEATURES, "--out", "c.parquet", "--size", "3", "--method", "uniform", "--num_clusters", "3"], 64, "uniform"),
        ([*FEATURES, "--out", "c.parquet", "--size", "3", "--method", "uniform", "--choice", "random"], 64, "--choice"),
        (["pool.parquet", "--features", "absent.safetensors", "--out", "c.parquet", "--size", "3"], 65, "absent"),
        (["pool.parquet", "--features", "others.safetensors", "--out", "c.parquet", "--size", "3"], 65, "other images"),
    ],
)
def test_a_mistake_is_one_line(pool, options, code, line, capsys):
    FeatureFile(torch.rand(3, 2), torch.arange(3), torch.full((3,), -1), {"data": "other"}).save("others.safetensors")
    assert run(["data", "curate", *options]) == code
    (shown,) = [each for each in capsys.readouterr().err.splitlines() if each]
    assert line in shown
