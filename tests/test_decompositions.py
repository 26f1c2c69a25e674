"""Decompositions have a result for every matrix: fall-back solvers agree, and no failure is an error."""

import math

import pytest
import torch

from ssl_lightning import decompositions
from ssl_lightning.decompositions import right_singular_vectors, singular_values, symmetric_eigen


def failing(*arguments, **options):
    raise torch.linalg.LinAlgError("the algorithm failed to converge")


def not_finite(matrix, *arguments, **options):
    return matrix.new_full(matrix.shape[:1], torch.nan), torch.full_like(matrix, torch.nan)


def table(rows, width):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows + width), dtype=torch.float64)


@pytest.mark.parametrize("broken", [failing, not_finite])
def test_another_solver_replaces_one_that_fails(broken, monkeypatch):
    matrix = table(40, 12).T @ table(40, 12)
    expected = torch.linalg.eigvalsh(matrix)
    monkeypatch.setattr(torch.linalg, "eigh", broken)
    values, vectors = symmetric_eigen(matrix)
    assert torch.allclose(values, expected)
    assert torch.allclose(vectors @ values.diag() @ vectors.T, matrix)
    assert symmetric_eigen(matrix.float())[1].dtype == torch.float32


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (1, 5), (5, 1)])
@pytest.mark.parametrize("broken", ["svdvals", "svdvals and scipy"])
def test_singular_values_have_two_fallbacks(shape, broken, monkeypatch):
    matrix = table(*shape)
    expected = torch.linalg.svdvals(matrix)
    monkeypatch.setattr(torch.linalg, "svdvals", failing)
    if "scipy" in broken:
        monkeypatch.setattr(decompositions, "_svd_by_qr", failing)
    assert torch.allclose(singular_values(matrix), expected, atol=1e-6)


def test_singular_vectors_are_those_of_the_other_solver_up_to_signs(monkeypatch):
    matrix = table(20, 6)
    expected = torch.linalg.svd(matrix, full_matrices=False).Vh
    monkeypatch.setattr(torch.linalg, "svd", failing)
    assert torch.allclose(right_singular_vectors(matrix).abs(), expected.abs())


def test_what_no_solver_solves_is_nan_with_one_line(monkeypatch, caplog):
    for name in ("eigh", "svd", "svdvals"):
        monkeypatch.setattr(torch.linalg, name, failing)
    monkeypatch.setattr(decompositions, "_eigen_by_qr", failing)
    monkeypatch.setattr(decompositions, "_svd_by_qr", failing)
    assert all(part.isnan().all() for part in symmetric_eigen(torch.eye(3)))
    assert singular_values(table(4, 3)).isnan().all()
    assert right_singular_vectors(table(4, 3)).isnan().all()
    assert len(caplog.records) == 3
    assert all("that no solver solves: the result is NaN" in record.message for record in caplog.records)


def test_values_that_are_not_finite_are_nan_with_one_line(caplog):
    values, _ = symmetric_eigen(torch.full((3, 3), math.inf))
    assert values.isnan().all()
    (line,) = (record.message for record in caplog.records)
    assert "expected finite features" in line


def test_a_matrix_without_rows_has_no_singular_values():
    assert singular_values(torch.zeros(0, 4)).shape == (0,)
