"""The order without an array: a permutation for every size, equal for any sharding, resumed by its version."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_lightning.counter_rng import Purpose, permuted
from ssl_lightning.data import order as order_module
from ssl_lightning.data.dataset import InMemoryImages
from ssl_lightning.data.loader import TrainingLoader
from ssl_lightning.data.order import KEYED, SORTED, keyed_order, order_version
from ssl_lightning.data.reading import CropSpec, RankShard
from ssl_lightning.errors import DataError


def loader(count=203, batch_size=8, rank=0, world=1, version=KEYED):
    images = InMemoryImages(torch.zeros(count, 3, 2, 2, dtype=torch.uint8))
    made = TrainingLoader(images, CropSpec([], 2, seed=5), batch_size, RankShard(rank, world))
    made.order = version
    return made


@given(st.integers(1, 3000), st.integers(0, 9), st.integers(0, 9))
def test_every_row_occurs_once(size, seed, epoch):
    rows = keyed_order(seed, epoch, size, 0, size)
    assert rows.sort().values.tolist() == list(range(size))


def test_sections_are_those_of_the_whole_order_and_epochs_and_seeds_differ():
    whole = keyed_order(0, 0, 5000, 0, 5000)
    assert torch.equal(torch.cat([keyed_order(0, 0, 5000, at, at + 500) for at in range(0, 5000, 500)]), whole)
    for seed, epoch in ((0, 1), (1, 0)):
        other = keyed_order(seed, epoch, 5000, 0, 5000)
        assert float((other == whole).float().mean()) < 0.01


def test_neighbors_are_far_apart_on_average_as_in_a_random_order():
    size = 100_000
    rows = permuted(0, Purpose.ORDER, 0, torch.arange(size), size).double()
    assert float(rows.diff().abs().mean()) == pytest.approx(size / 3, rel=0.02)
    places = torch.arange(size, dtype=torch.float64)
    assert abs(float(torch.corrcoef(torch.stack([places, rows]))[0, 1])) < 0.01


def test_large_sizes_need_no_array():
    rows = keyed_order(0, 0, 10**12, 10**11, 10**11 + 256)
    assert len(rows.unique()) == 256
    assert int(rows.min()) >= 0
    assert int(rows.max()) < 10**12


def test_an_epoch_misses_only_the_last_batch_and_ranks_divide_each_batch():
    whole = [batch.index for batch in loader()]
    assert len(torch.cat(whole).unique()) == len(whole) * 8 == 200
    ranks = [[batch.index for batch in loader(rank=rank, world=2)] for rank in range(2)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert torch.equal(batch, torch.cat([first, second]))


@pytest.mark.parametrize("version", [SORTED, KEYED])
def test_a_run_resumes_in_the_middle_with_the_version_of_its_checkpoint(version):
    whole = [batch.index for batch in loader(version=version)]
    stopped = loader(version=version)
    for _, _ in zip(range(7), stopped, strict=False):
        pass
    state = stopped.state_dict()
    position = state["position"]
    resumed = loader(version=SORTED if version == KEYED else KEYED)  # what a new run would take
    resumed.load_state_dict(state)
    rest = [batch.index for batch in resumed]
    assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in whole[position:]]


def test_checkpoints_of_earlier_versions_keep_the_sorted_order_and_unknown_ones_are_rejected():
    state = loader(version=SORTED).state_dict()
    del state["order"]
    resumed = loader(version=KEYED)
    resumed.load_state_dict(state)
    assert resumed.order == SORTED
    with pytest.raises(DataError, match="expected sorted or keyed"):
        resumed.load_state_dict(state | {"order": "other"})


def test_new_runs_take_the_keyed_order_above_a_million_rows(monkeypatch):
    assert (order_version(1 << 20), order_version((1 << 20) + 1)) == (SORTED, KEYED)
    monkeypatch.setattr(order_module, "_MOST_SORTED", 10)
    images = InMemoryImages(torch.zeros(20, 3, 2, 2, dtype=torch.uint8))
    assert TrainingLoader(images, CropSpec([], 2), 8).order == KEYED
