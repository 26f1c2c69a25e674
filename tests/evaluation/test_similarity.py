"""Similarity of representations against loops, and its invariances."""

import math

import pytest
import torch

from ssl_lightning.evaluation.similarity import linear_cka, shared_neighbors


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 7, generator=generator), torch.randn(40, 3, generator=generator)


def hsic(a, b):
    """The centered kernels of the paper, element by element."""
    n = len(a)
    center = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = a.double() @ a.double().T, b.double() @ b.double().T
    centered = center @ k @ center
    return sum(float(centered[i, j] * m[i, j]) for i in range(n) for j in range(n))


def test_cka_is_the_alignment_of_centered_kernels(rows):
    a, b = rows
    assert linear_cka(a, b) == pytest.approx(hsic(a, b) / math.sqrt(hsic(a, a) * hsic(b, b)))


def test_cka_is_one_for_a_rotation_a_scale_and_a_shift_and_low_for_others(rows):
    a, b = rows
    rotation = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(1))).Q
    assert linear_cka(a, 3 * a @ rotation + 5) == pytest.approx(1, abs=1e-5)
    assert linear_cka(a, b) < 0.3
    assert math.isnan(linear_cka(a, torch.ones(40, 2)))


def test_shared_neighbors_are_counted_for_each_image(rows):
    a, b = rows
    nearest = []
    for features in rows:
        unit = torch.nn.functional.normalize(features, dim=1)
        scores = [[float(unit[i] @ unit[j]) if i != j else -9.0 for j in range(40)] for i in range(40)]
        nearest.append([set(sorted(range(40), key=lambda j, own=own: -own[j])[:5]) for own in scores])
    expected = sum(len(own & other) / 5 for own, other in zip(*nearest, strict=True)) / 40
    assert shared_neighbors(a, b, 5) == pytest.approx(expected)
    assert shared_neighbors(a, 2 * a, 5) == 1
