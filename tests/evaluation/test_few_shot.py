"""Few-shot episodes against a loop of scikit-learn over the same episodes, and what an episode is."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch.nn import functional as F

from ssl_lightning.evaluation import FewShot, LabelledFeatures
from ssl_lightning.evaluation.episodes import inner_products, logistic_scores
from ssl_lightning.evaluation.few_shot import _distinct
from tests.evaluation.test_knn import random_split

SPLIT = random_split(600, width=24, classes=12)


def loop(split, rows, shots, classifier):
    """One episode at a time."""
    unit = F.normalize(split.features, dim=1).numpy()
    right = []
    for episode in rows.numpy():
        ways, size = episode.shape
        fitted = classifier().fit(unit[episode[:, :shots].ravel()], np.repeat(np.arange(ways), shots))
        right.append(fitted.score(unit[episode[:, shots:].ravel()], np.repeat(np.arange(ways), size - shots)))
    return np.array(right)


@pytest.mark.parametrize(
    ("kind", "shots", "classifier"),
    [
        (
            "centroid",
            1,
            lambda: KNeighborsClassifier(1),
        ),  # NearestCentroid divides by nought where classes have one row
        ("centroid", 5, NearestCentroid),
        ("logistic", 1, LogisticRegression),
        ("logistic", 5, LogisticRegression),
    ],
)
def test_it_is_a_loop_of_scikit_learn_over_its_episodes(kind, classifier, shots):
    probe = FewShot(shots=(shots,), episodes=60, classifier=kind)
    answers = probe(SPLIT, SPLIT)
    right = loop(SPLIT, probe.sample_episodes(SPLIT.labels, shots, 15), shots, classifier)
    name = f"fewshot/5way{shots}shot"
    assert answers[name] == pytest.approx(right.mean(), abs=0.002)
    assert answers[f"{name}/ci95"] == pytest.approx(1.96 * right.std(ddof=1) / math.sqrt(60), abs=0.001)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_the_logistic_solver_reaches_the_probabilities_of_scikit_learn(scale, offset):
    probe = FewShot(episodes=8)
    rows = probe.sample_episodes(SPLIT.labels, 5, 15)
    features = scale * F.normalize(SPLIT.features + offset, dim=1)
    ours = logistic_scores(*inner_products(features, rows, 5), ways=5).softmax(2)
    for episode, found in zip(rows, ours, strict=True):
        theirs = LogisticRegression(tol=1e-8, max_iter=5000)
        theirs.fit(features[episode[:, :5].flatten()].numpy(), np.repeat(np.arange(5), 5))
        expected = theirs.predict_proba(features[episode[:, 5:].flatten()].numpy())
        assert np.abs(found.numpy() - expected).max() < 2e-3


def test_an_episode_has_distinct_classes_and_distinct_images_of_them():
    rows = FewShot(episodes=200).sample_episodes(SPLIT.labels, 5, 15)
    assert rows.shape == (200, 5, 20)
    for episode in rows:
        classes = SPLIT.labels[episode]
        assert (classes == classes[:, :1]).all()
        assert len(classes[:, 0].unique()) == 5
        assert len(episode.unique()) == 100


def test_every_class_and_every_image_has_its_turn():
    rows = FewShot(episodes=600).sample_episodes(SPLIT.labels, 1, 15)
    assert len(rows.unique()) == 600
    shots = torch.bincount(SPLIT.labels[rows[:, :, 0]].flatten(), minlength=12)
    assert shots.min() > 0.8 * 250
    assert shots.max() < 1.2 * 250


def test_distinct_numbers_are_distinct_and_every_order_is_equally_likely():
    generator = torch.Generator().manual_seed(0)
    picks = _distinct(torch.rand(60_000, 6, generator=generator), torch.full((60_000,), 4))
    assert picks.shape == (60_000, 3)
    codes = torch.bincount((picks * torch.tensor([16, 4, 1])).sum(1), minlength=64)
    orders = codes[codes > 0]
    assert len(orders) == 24
    assert orders.min() > 0.9 * 2500
    assert orders.max() < 1.1 * 2500


def test_the_seed_names_the_episodes():
    probe = FewShot(episodes=20)
    assert torch.equal(
        probe.sample_episodes(SPLIT.labels, 1, 15), FewShot(episodes=20).sample_episodes(SPLIT.labels, 1, 15)
    )
    assert not torch.equal(
        probe.sample_episodes(SPLIT.labels, 1, 15), FewShot(episodes=20, seed=1).sample_episodes(SPLIT.labels, 1, 15)
    )


def test_well_separated_classes_are_recognized_from_one_image():
    labels = torch.arange(8).repeat(30)
    split = LabelledFeatures(torch.eye(8)[labels] + 0.01 * torch.randn(240, 8), labels, 8)
    answers = FewShot(episodes=50)(split, split)
    assert answers["fewshot/5way1shot"] == answers["fewshot/5way5shot"] == 1.0
    assert answers["fewshot/5way1shot/ci95"] == 0.0


def test_queries_shrink_to_what_is_left_and_below_five_the_metric_is_undefined():
    labels = torch.arange(5).repeat_interleave(8)
    split = LabelledFeatures(torch.randn(40, 4), labels, 5)
    answers = FewShot(episodes=10)(split, split)
    assert 0 <= answers["fewshot/5way1shot"] <= 1
    assert math.isnan(answers["fewshot/5way5shot"])
    assert math.isnan(answers["fewshot/5way5shot/ci95"])


def test_classes_with_too_few_images_are_left_out():
    labels = torch.cat([torch.arange(6).repeat(20), torch.full((3,), 6)])
    rows = FewShot(episodes=100).sample_episodes(labels, 5, 15)
    assert int(labels[rows].max()) == 5


@pytest.mark.parametrize("options", [{"ways": 1}, {"shots": ()}, {"shots": (0,)}, {"episodes": 1}, {"queries": 4}])
def test_settings_that_make_no_sense_are_rejected(options):
    with pytest.raises(ValueError, match="expected at least"):
        FewShot(**options)
