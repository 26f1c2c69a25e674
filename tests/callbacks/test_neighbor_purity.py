"""NeighborPurity: shares against a count by hand, and silence where there is nothing to compare."""

import pytest
import torch

from ssl_lightning.callbacks.neighbor_purity import purity_of_neighbors


class Listed:
    """Neighbors written down: three rows, the image itself first."""

    has_neighbors = True

    def neighbors(self, index):
        rows = torch.tensor([[0, 1, 2, 3], [4, 0, 4, 5]])
        background = torch.tensor([[True, True, True, True], [True, True, False, True]])
        close = torch.tensor([[True, True, False, True], [True, False, False, True]])
        return rows, background, close


def test_shares_leave_out_the_image_itself_and_rows_without_a_label():
    labels = torch.tensor([0, 0, 1, -1, 1, 1])
    found = purity_of_neighbors(Listed(), torch.tensor([0, 4]), labels)
    assert found["cluster/close_purity"] == 1.0  # row 1 for 0, row 5 for 4; row 3 has no label
    assert found["cluster/background_purity"] == pytest.approx(2 / 4)  # of 1, 2 for row 0 and 0, 5 for row 4
    assert found["cluster/chance_purity"] == pytest.approx((1 / 4 + 2 / 4) / 2)  # of four others each


def test_chance_is_what_random_neighbors_reach():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (2000,), generator=generator)

    class RandomNeighbors:
        has_neighbors = True

        def neighbors(self, index):
            rows = torch.cat([index.unsqueeze(1), torch.randint(2000, (len(index), 200), generator=generator)], dim=1)
            everyone = torch.ones_like(rows, dtype=torch.bool)
            return rows, everyone, everyone

    found = purity_of_neighbors(RandomNeighbors(), torch.arange(500), labels)
    assert found["cluster/close_purity"] == pytest.approx(found["cluster/chance_purity"], abs=0.005)
