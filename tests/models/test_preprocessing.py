"""Preprocessing: plain values that normalize images and can be compared."""

from dataclasses import replace

import pytest
import torch

from ssl_lightning.checkpoints import to_plain
from ssl_lightning.errors import UsageError
from ssl_lightning.models import Preprocessing

COLORS = Preprocessing(16, (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
IMAGES = torch.randint(256, (4, 3, 5, 5), generator=torch.Generator().manual_seed(0)).byte()


def test_bytes_and_fractions_are_normalized_alike_and_back():
    fractions = IMAGES.float() / 255
    expected = torch.stack([(fractions[:, c] - COLORS.mean[c]) / COLORS.std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(COLORS.normalize(IMAGES), expected)
    torch.testing.assert_close(COLORS.denormalize(expected), fractions)
    view = fractions.clone()
    assert COLORS.normalize_(view) is view
    torch.testing.assert_close(view, expected)


def test_it_is_described_in_plain_values():
    described = to_plain(COLORS)["init_args"]
    assert described == {"image_size": 16, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.125]}


@pytest.mark.parametrize("name", ["image_size", "mean", "std"])
def test_the_first_difference_is_named(name):
    other = {"image_size": 8, "mean": (0.0, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}[name]
    assert COLORS.difference(replace(COLORS, **{name: other})) == name
    assert COLORS.difference(COLORS) is None


@pytest.mark.parametrize("wrong", [{"image_size": 0}, {"std": (0.1, 0.0, 0.1)}])
def test_values_that_normalize_nothing_are_rejected(wrong):
    with pytest.raises(UsageError, match=r"found Preprocessing\(.*; expected an image_size of at least 1"):
        Preprocessing(**wrong)
