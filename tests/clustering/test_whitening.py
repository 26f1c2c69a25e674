"""PCA-whitening against NumPy's singular values, and what it promises."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.clustering import PCAWhitening
from tests.clustering.test_kmeans import mixture


def by_numpy(features, dim):
    centered = features.double().numpy() - features.double().numpy().mean(0)
    _, singular, basis = np.linalg.svd(centered, full_matrices=False)
    white = centered @ basis[:dim].T / (singular[:dim] / np.sqrt(len(features)))
    return white / np.linalg.norm(white, axis=1, keepdims=True)


def test_it_is_a_singular_value_decomposition_up_to_signs():
    features = mixture(500, 24) @ torch.randn(24, 24, generator=torch.Generator().manual_seed(1))
    ours, theirs = PCAWhitening(10)(features).double().numpy(), by_numpy(features, 10)
    signs = np.sign((ours * theirs).sum(0))
    assert np.allclose(ours, theirs * signs, atol=1e-4)


def test_before_the_scaling_of_rows_components_are_uncorrelated_and_of_unit_variance(monkeypatch):
    white = []
    monkeypatch.setattr(F, "normalize", lambda rows, dim: white.append(rows) or rows)
    PCAWhitening(8)(mixture(2000))
    assert torch.allclose(white[0].T @ white[0] / 2000, torch.eye(8), atol=1e-3)
    assert torch.allclose(white[0].mean(0), torch.zeros(8), atol=1e-4)


def test_rows_have_length_one_and_a_rotation_changes_only_signs():
    features = mixture(400)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(2))).Q
    plain, turned = PCAWhitening(6)(features), PCAWhitening(6)(features @ rotation + 5)
    assert torch.allclose(plain.norm(dim=1), torch.ones(400), atol=1e-5)
    assert torch.allclose(plain.abs(), turned.abs(), atol=1e-3)


def test_constant_features_give_zeros_and_no_nan():
    assert torch.equal(PCAWhitening(3)(torch.full((20, 5), 4.0)), torch.zeros(20, 3))
    partly = torch.cat([mixture(50, 2), torch.zeros(50, 3)], 1)
    assert PCAWhitening(5)(partly).isfinite().all()


@pytest.mark.parametrize(("rows", "width"), [(100, 4), (4, 100)])
def test_more_components_than_features_or_rows_are_rejected(rows, width):
    with pytest.raises(ValueError, match="lower dim"):
        PCAWhitening(5)(torch.randn(rows, width))


@pytest.mark.parametrize("options", [{"dim": 0}, {"dim": 4, "epsilon": 0.0}])
def test_settings_that_make_no_sense_are_rejected(options):
    with pytest.raises(ValueError, match="expected positive numbers"):
        PCAWhitening(**options)
