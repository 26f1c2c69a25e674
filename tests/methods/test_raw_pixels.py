"""The floor under every method: pixels as they are, or normalized."""

import pytest
import torch

from ssl_lightning.errors import UsageError
from ssl_lightning.methods import RawPixels
from ssl_lightning.models import Preprocessing

COLORS = Preprocessing(4, (0.1, 0.5, 0.9), (0.2, 0.3, 0.4))


def test_raw_pixels_are_fractions_and_normalized_ones_what_a_network_sees():
    images = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    raw, seen = RawPixels(False, COLORS), RawPixels(True, COLORS)
    assert torch.allclose(raw.embed(raw.normalize(images)), images.flatten(1) / 255, atol=1e-6)
    assert torch.equal(seen.embed(seen.normalize(images)), seen.normalize(images).flatten(1))


def test_there_is_nothing_to_train():
    with pytest.raises(UsageError, match="nothing to train"):
        RawPixels().training_step(None, 0)
