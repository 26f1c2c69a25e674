"""Nearest rows by cosine, against scikit-learn."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ssl_lightning.evaluation.knn import nearest_between, nearest_rows


def test_the_nearest_are_scikit_learns_without_the_row_itself():
    features = torch.randn(700, 12, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(650)  # more than one block
    reference = NearestNeighbors(n_neighbors=9, metric="cosine").fit(features.double().numpy())
    expected = reference.kneighbors(features[rows].double().numpy(), return_distance=False)
    assert expected[:, 0].tolist() == rows.tolist()
    assert torch.equal(nearest_rows(features, rows, 8), torch.from_numpy(expected[:, 1:]))


def test_a_row_is_not_its_own_neighbor_even_where_it_has_a_twin():
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    assert nearest_rows(features, torch.tensor([0, 1]), 1).tolist() == [[1], [0]]


@pytest.mark.parametrize("count", [0, 3])
def test_more_neighbors_than_there_are_is_rejected(count):
    with pytest.raises(ValueError, match=f"found count={count} among 3 rows; expected 1 to 2"):
        nearest_rows(torch.eye(3), torch.tensor([0]), count)


def test_neighbors_in_another_table_are_those_of_all_similarities(monkeypatch):
    monkeypatch.setattr("ssl_lightning.evaluation.knn.ROWS_AT_ONCE", 7)
    generator = torch.Generator().manual_seed(0)
    queries, reference = torch.randn(5, 6, generator=generator), torch.randn(40, 6, generator=generator)
    similarity = torch.nn.functional.cosine_similarity(queries.unsqueeze(1), reference.unsqueeze(0), dim=2)
    assert torch.equal(nearest_between(queries, reference, 3), similarity.argsort(1, descending=True)[:, :3])
    assert nearest_between(queries, reference[:2], 3).shape == (5, 2)
    assert nearest_between(queries, reference[:0], 3).shape == (5, 0)
