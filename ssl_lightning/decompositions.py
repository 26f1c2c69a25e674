"""Eigen- and singular-value decompositions that give a result, or NaN and one logged line, for every matrix.

LAPACK's divide-and-conquer solvers, which torch uses, fail on some matrices with many equal eigenvalues: features of
collapsed networks, dead units, duplicated columns. QR iteration solves those.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

log = logging.getLogger(__name__)

JITTER = 1e-10
"""Added to the diagonal in the last attempt, as a fraction of the largest entry."""


def symmetric_eigen(matrix: Float[Tensor, "D D"]) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
    """Eigenvalues in ascending order and eigenvectors (columns) of a symmetric matrix; NaN if no solver succeeds."""
    found = _first_success(
        "symmetric eigenvalue problem", matrix, (torch.linalg.eigh, _eigen_by_qr, lambda m: _eigen_by_qr(_jittered(m)))
    )
    if found is None:
        return matrix.new_full(matrix.shape[:1], torch.nan), torch.full_like(matrix, torch.nan)
    return found[0], found[1]


def singular_values(matrix: Float[Tensor, "N D"]) -> Float[Tensor, "n"]:
    """Singular values in descending order; NaN if no solver succeeds."""
    size = min(matrix.shape)
    if size == 0:
        return matrix.new_zeros(0)
    solvers = (lambda m: (torch.linalg.svdvals(m),), lambda m: (_svd_by_qr(m)[1],), _singular_values_of_gram)
    found = _first_success("singular value problem", matrix, solvers)
    return found[0] if found else matrix.new_full((size,), torch.nan)


def right_singular_vectors(matrix: Float[Tensor, "N D"]) -> Float[Tensor, "n D"]:
    """Right singular vectors as rows, by descending singular value; NaN if no solver succeeds."""

    def by_torch(m: Tensor) -> tuple[Tensor]:
        return (torch.linalg.svd(m, full_matrices=False).Vh,)

    found = _first_success("singular value problem", matrix, (by_torch, lambda m: (_svd_by_qr(m)[2],)))
    return found[0] if found else matrix.new_full((min(matrix.shape), matrix.shape[1]), torch.nan)


def _first_success(
    problem: str, matrix: Tensor, solvers: Sequence[Callable[[Tensor], Sequence[Tensor]]]
) -> Sequence[Tensor] | None:
    """The result of the first solver that converges to finite values; None, with one logged line, if none does."""
    if not torch.isfinite(matrix).all():
        log.warning("found a %s with values that are not finite; expected finite features: the result is NaN", problem)
        return None
    for solve in solvers:
        try:
            found = solve(matrix)
        except (RuntimeError, ValueError):  # torch's and NumPy's errors of linear algebra
            continue
        if all(bool(torch.isfinite(part).all()) for part in found):
            return found
    log.warning("found a %s of %s that no solver solves: the result is NaN", problem, tuple(matrix.shape))
    return None


def _eigen_by_qr(matrix: Float[Tensor, "D D"]) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
    """LAPACK's `syev` on the CPU in float64: two to five times as slow as the default, and it always converges."""
    from scipy.linalg import eigh  # slow to import

    values, vectors = eigh(matrix.double().cpu().numpy(), driver="ev")
    return torch.from_numpy(values).to(matrix), torch.from_numpy(vectors).to(matrix)


def _svd_by_qr(matrix: Float[Tensor, "N D"]) -> tuple[Tensor, Tensor, Tensor]:
    """LAPACK's `gesvd` on the CPU in float64."""
    from scipy.linalg import svd  # slow to import

    left, values, right = svd(matrix.double().cpu().numpy(), full_matrices=False, lapack_driver="gesvd")
    return torch.from_numpy(left).to(matrix), torch.from_numpy(values).to(matrix), torch.from_numpy(right).to(matrix)


def _singular_values_of_gram(matrix: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "n"]]:
    wide = matrix.shape[0] < matrix.shape[1]
    values = _eigen_by_qr(matrix @ matrix.T if wide else matrix.T @ matrix)[0]
    return (values.clamp(min=0).sqrt().flip(0),)


def _jittered(matrix: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    size = len(matrix)
    return matrix + JITTER * matrix.abs().max() * torch.eye(size, dtype=matrix.dtype, device=matrix.device)
