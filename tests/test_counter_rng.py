"""Counter-based random numbers: pure functions of their keys, uniform, and independent of batch and order."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssl_lightning.counter_rng import Purpose, bits, number, permutation, uniform


def splitmix64(state: int) -> int:
    """The finalizer of SplitMix64 in Python's own integers."""
    mask = (1 << 64) - 1
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_bits_are_those_of_splitmix64_in_python_integers():
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15
    state = 0
    for key in (7, int(Purpose.VIEW), 3, 1):
        state = splitmix64((state + golden + key) & mask)
    expected = [splitmix64((row * golden + state) & mask) for row in range(5)]
    found = [value & mask for value in bits(7, Purpose.VIEW, 3, torch.arange(5), view=1).tolist()]
    assert found == expected


@given(seed=st.integers(-(2**63), 2**64), epoch=st.integers(0, 10**6), rows=st.lists(st.integers(0, 2**40), min_size=1))
@settings(max_examples=50, deadline=None)
def test_the_draw_of_a_row_does_not_depend_on_the_rows_beside_it(seed, epoch, rows):
    together = uniform(seed, Purpose.VIEW, epoch, torch.tensor(rows), 2, 5)
    alone = torch.cat([uniform(seed, Purpose.VIEW, epoch, torch.tensor([row]), 2, 5) for row in rows])
    assert torch.equal(together, alone)
    assert ((together >= 0) & (together < 1)).all()


def test_samples_are_uniform_and_differ_between_seeds_purposes_epochs_and_views():
    rows = torch.arange(20_000)
    first = uniform(0, Purpose.VIEW, 0, rows, 0, 2)
    assert stats.kstest(first.flatten().numpy(), "uniform").pvalue > 1e-3
    others = [
        uniform(1, Purpose.VIEW, 0, rows, 0, 2),
        uniform(0, Purpose.ORDER, 0, rows, 0, 2),
        uniform(0, Purpose.VIEW, 1, rows, 0, 2),
        uniform(0, Purpose.VIEW, 0, rows, 1, 2),
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([first[:, 0], other[:, 0]]))[0, 1]) < 0.03


def test_permutations_hold_every_row_once_and_differ_between_epochs():
    orders = [permutation(0, Purpose.ORDER, epoch, 1000) for epoch in range(3)]
    assert all(torch.equal(order.sort().values, torch.arange(1000)) for order in orders)
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], permutation(0, Purpose.ORDER, 0, 1000))


def test_numbers_fit_a_torch_generator():
    for epoch in range(100):
        torch.Generator().manual_seed(number(3, Purpose.CLUSTERING, epoch))


def test_an_occurrence_is_a_key_and_the_first_one_changes_nothing():
    rows = torch.arange(500)
    plain = uniform(3, Purpose.VIEW, 2, rows, 1, 4)
    assert torch.equal(uniform(3, Purpose.VIEW, 2, rows, 1, 4, torch.zeros_like(rows)), plain)
    mixed = uniform(3, Purpose.VIEW, 2, rows, 1, 4, rows % 3)
    assert torch.equal(mixed[rows % 3 == 0], plain[rows % 3 == 0])
    others = [plain, *(uniform(3, Purpose.VIEW, 2, rows, 1, 4, torch.full_like(rows, n)) for n in (1, 2, 3))]
    assert torch.equal(mixed[rows % 3 == 2], others[2][rows % 3 == 2])
    numbers = torch.stack(others).double()
    assert len(numbers.unique()) > 0.999 * numbers.numel()
    correlations = torch.corrcoef(numbers.permute(0, 2, 1).reshape(16, 500)) - torch.eye(16)
    assert correlations.abs().max() < 0.2
