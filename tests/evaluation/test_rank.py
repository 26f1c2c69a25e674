"""Closed forms of the label-free measures, and agreement of clusters with classes."""

import math

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from ssl_lightning.clustering import KMeans
from ssl_lightning.evaluation import ClusterAgreement, LabelledFeatures, feature_std, rank_me
from tests.evaluation.test_knn import random_split


def test_rows_along_one_direction_have_rank_one():
    assert rank_me(torch.randn(50, 1) @ torch.randn(1, 20)) == pytest.approx(1.0, abs=1e-4)


def test_orthonormal_rows_have_full_rank():
    assert rank_me(torch.linalg.qr(torch.randn(30, 12)).Q) == pytest.approx(12.0, abs=1e-3)


def test_two_directions_of_unequal_strength_lie_between():
    features = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert rank_me(features) == pytest.approx(expected, abs=1e-6)


def test_features_of_nothing_have_rank_nought():
    assert rank_me(torch.zeros(10, 4)) == 0.0


def test_spread_is_one_for_even_directions_and_nought_for_collapsed_ones():
    assert feature_std(torch.randn(20_000, 64)) == pytest.approx(1.0, abs=0.02)
    assert feature_std(torch.ones(100, 8) * 3) == pytest.approx(0.0, abs=1e-6)


def test_agreement_is_the_information_that_k_means_shares_with_the_classes():
    split = random_split(300, width=10)
    found = KMeans(init="k-means++")(split.features, 5, 0)
    expected = normalized_mutual_info_score(split.labels, found.labels, average_method="geometric")
    assert ClusterAgreement()(split, split)["clusters/nmi"] == pytest.approx(expected, abs=1e-6)


def test_agreement_needs_as_many_images_as_classes():
    split = LabelledFeatures(torch.randn(3, 4), torch.arange(3), 10)
    assert math.isnan(ClusterAgreement()(split, split)["clusters/nmi"])
