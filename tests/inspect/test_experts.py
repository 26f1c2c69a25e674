"""Divide and Contrast dissected: networks and clusters are those of the files, and numbers those of loops."""

import math
import shutil

import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.checkpoints import load_model
from ssl_lightning.clustering import Clustering
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.evaluation.similarity import linear_cka
from ssl_lightning.inspect import (
    agreement_of_networks,
    draw_similarity,
    expert_table,
    features,
    kept_by_distillation,
    load_division,
    load_run,
    other_experts,
)
from tests.trained_runs import TrainedRuns

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    trained = TrainedRuns(tmp_path_factory.mktemp("stages"))
    return trained, trained("distill")


@pytest.fixture
def division(stages):
    return load_division(load_run(stages[1]))


def share_of_class(values, labels, k=10):
    unit, shares = F.normalize(values, dim=1), []
    for row in range(len(unit)):
        scores = (unit @ unit[row]).tolist()
        others = sorted((other for other in range(len(unit)) if other != row), key=lambda other: -scores[other])[:k]
        shares.append(sum(int(labels[other] == labels[row]) for other in others) / k)
    return sum(shares) / len(shares)


def test_networks_and_clusters_are_those_of_the_stages(stages, division):
    trained, _ = stages
    assert list(division.runs) == ["base", "expert 0", "expert 1", "student"]
    clustering, _ = Clustering.load(trained.folder / "base-clusters.safetensors")
    assert torch.equal(division.clusters.labels, clustering.labels)
    assert torch.equal(division.clusters.distances, clustering.distances)
    expected = load_model(trained.checkpoint("expert-1")).state_dict()["backbone.body.conv1.weight"]
    assert torch.equal(division.runs["expert 1"].method.state_dict()["backbone.body.conv1.weight"], expected)
    # an expert was trained on its cluster, and is inspected on all images
    assert all(run.data.num_samples == 1438 for run in division.runs.values())
    table = expert_table(division)
    assert table.images.tolist() == clustering.sizes.tolist()
    assert table.share.sum() == pytest.approx(1)
    assert table.steps.tolist() == [2, 2]


def test_agreement_is_the_cka_of_the_same_images(division):
    table = agreement_of_networks(division, max_images=100)
    base, student = (features(division.runs[name], max_images=100) for name in ("base", "student"))
    assert torch.equal(base.rows, student.rows)
    assert table.loc["base", "student"] == pytest.approx(linear_cka(base.values, student.values))
    assert table.index.tolist() == table.columns.tolist() == list(division.runs)
    assert len(draw_similarity(table).axes) == 2


def test_what_is_kept_is_computed_within_each_cluster(division):
    kept = kept_by_distillation(division, max_images=150)
    student = features(division.student, max_images=150)
    own = division.clusters.labels[student.rows]
    assert kept.images.tolist() == [int((own == k).sum()) for k in range(2)]
    for k in range(2):
        members = own == k
        expert = features(division.runs[f"expert {k}"], max_images=150)
        expected = linear_cka(expert.values[members], student.values[members])
        assert kept.loc[k, "CKA expert"] == pytest.approx(expected)
        share = share_of_class(student.values[members], student.labels[members])
        assert kept.loc[k, "class student"] == pytest.approx(share, abs=0.002)  # near-ties
    assert kept.filter(like="neighbors").to_numpy().min() > 0


def test_each_expert_is_compared_on_each_cluster(division):
    table = other_experts(division, max_images=150)
    found = features(division.runs["expert 0"], max_images=150)
    members = division.clusters.labels[found.rows] == 1
    share = share_of_class(found.values[members], found.labels[members])
    assert table.loc[0, "cluster 1"] == pytest.approx(share, abs=0.002)
    table[:] = math.nan
    assert draw_similarity(table) == "no number is known: they need labels"


def test_other_runs_and_missing_files_are_one_line(stages, tmp_path):
    trained, student = stages
    with pytest.raises(UsageError, match="found a run of MoCLR, base; expected one of Distill"):
        load_division(load_run(trained("base")))
    run = load_run(student)
    run.method.experts[1] = "runs/gone/last.ckpt"
    with pytest.raises(DataError, match=r"found no runs/gone/last\.ckpt, the expert 1 of distill; expected it: start"):
        load_division(run)


def test_relative_paths_count_from_a_folder_that_holds_the_run(stages, tmp_path, monkeypatch):
    trained, student = stages
    shutil.copytree(trained.folder, tmp_path / "lab" / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    run = load_run(tmp_path / "lab" / "runs" / student.name)
    run.method.base = "runs/base/checkpoints/last.ckpt"
    assert load_division(run).runs["base"].path == (tmp_path / "lab" / "runs" / "base").resolve()
