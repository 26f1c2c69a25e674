"""The blockwise order: a permutation for every size, local, equal for any sharding, resumed anywhere."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_lightning.counter_rng import Purpose, number, permuted
from ssl_lightning.data import SyntheticImages
from ssl_lightning.data.dataset import InMemoryImages
from ssl_lightning.data.loader import TrainingLoader
from ssl_lightning.data.order import BlockOrder, Blocks, epoch_order
from ssl_lightning.data.packs import open_unlabelled
from ssl_lightning.data.reading import CropSpec, RankShard
from ssl_lightning.data.views import View
from ssl_lightning.errors import UsageError

SMALL = Blocks(rows=7, window=3)


def rows_of(seed, epoch, size, blocks):
    return BlockOrder(seed, epoch, size, blocks).section(0, size)


def reference(seed, epoch, size, blocks):
    """Lists of blocks, shuffled by the keys of the documentation."""
    every = [list(range(at, min(at + blocks.rows, size))) for at in range(0, size, blocks.rows)]
    order = permuted(seed, Purpose.BLOCKS, epoch, torch.arange(len(every)), len(every)).tolist()
    found = []
    for window, at in enumerate(range(0, len(every), blocks.window)):
        rows = [row for block in order[at : at + blocks.window] for row in every[block]]
        key = number(seed, Purpose.BLOCKS, epoch, window)
        places = permuted(key, Purpose.BLOCKS, epoch, torch.arange(len(rows)), len(rows)).tolist()
        found += [rows[place] for place in places]
    return found


def loader(count=203, batch_size=8, rank=0, world=1, blocks=SMALL):
    images = InMemoryImages(torch.zeros(count, 3, 2, 2, dtype=torch.uint8))
    return TrainingLoader(images, CropSpec([], 2, seed=5), batch_size, RankShard(rank, world), blocks=blocks)


@given(st.integers(1, 900), st.integers(1, 40), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_row_occurs_once_in_the_order_of_the_reference(size, rows, window, seed, epoch):
    blocks = Blocks(rows, window)
    found = rows_of(seed, epoch, size, blocks).tolist()
    assert sorted(found) == list(range(size))
    assert found == reference(seed, epoch, size, blocks)


@given(st.integers(1, 500), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_sections_are_those_of_the_whole_order(size, step):
    order = BlockOrder(1, 2, size, SMALL)
    sections = [order.section(at, min(size, at + step)) for at in range(0, size, step)]
    assert torch.equal(torch.cat(sections), order.section(0, size))


def test_a_window_reads_from_few_blocks_and_mixes_them():
    blocks = Blocks(rows=100, window=8)
    rows = rows_of(0, 0, 50_000, blocks)
    for window in rows.split(800)[:-1]:  # the last one has four blocks
        assert len((window // 100).unique()) == 8
        assert len((window[:100] // 100).unique()) == 8  # 100 rows of 800 miss a block with probability 1e-5
    neighbors = (rows[1:] == rows[:-1] + 1).float().mean()
    assert float(neighbors) < 0.01


def test_windows_differ_in_their_inner_order_and_epochs_and_seeds_in_all():
    size, blocks = 4096, Blocks(rows=256, window=4)
    first, second = (rows_of(0, 0, size, blocks).split(1024)[window] for window in (0, 1))
    assert float((first % 256 == second % 256).float().mean()) < 0.05
    for seed, epoch in ((0, 1), (1, 0)):
        assert float((rows_of(seed, epoch, size, blocks) == rows_of(0, 0, size, blocks)).float().mean()) < 0.01


def test_one_window_over_all_rows_is_as_random_as_the_full_order():
    size = 20_000
    full = epoch_order(0, 0, size).double().diff().abs().mean()
    blocks = rows_of(0, 0, size, Blocks(rows=1000, window=20)).double().diff().abs().mean()
    assert float(blocks) == pytest.approx(float(full), rel=0.03)


def test_many_rows_need_an_array_of_blocks_alone():
    order = BlockOrder(0, 0, 10**9, Blocks(rows=10**6, window=10))
    assert len(order.ends) == 1000
    rows = order.section(10**8 - 5, 10**8 + 300)  # across windows
    assert len(rows.unique()) == 305


def test_ranks_divide_each_batch_and_an_epoch_misses_only_the_last():
    whole = [batch.index for batch in loader()]
    assert len(torch.cat(whole).unique()) == len(whole) * 8 == 200
    ranks = [[batch.index for batch in loader(rank=rank, world=2)] for rank in range(2)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert torch.equal(batch, torch.cat([first, second]))


@pytest.mark.parametrize("position", [1, 2, 11, 24])
def test_a_run_resumes_at_any_batch(position):
    whole = [batch.index.tolist() for batch in loader()]
    stopped = loader()
    for _, _ in zip(range(position), stopped, strict=False):
        pass
    resumed = loader()
    state = stopped.state_dict()
    resumed.load_state_dict(state)
    assert [batch.index.tolist() for batch in resumed] == whole[state["position"] :]


def test_workers_do_not_change_it(folder, png):
    files = {f"{n:03d}.png": png(n, (9, 12) if n % 2 else (14, 10)) for n in range(40)}
    stored = open_unlabelled(str(folder(files)))
    found = [
        [
            batch.index.tolist()
            for batch in TrainingLoader(stored, CropSpec([View()], 8), 6, num_workers=n, blocks=SMALL)
        ]
        for n in (0, 2)
    ]
    assert found[0] == found[1]


def test_another_order_than_that_of_the_checkpoint_is_rejected():
    for written, read in ((SMALL, None), (None, SMALL), (SMALL, Blocks(7, 4))):
        state = loader(blocks=written).state_dict()
        with pytest.raises(UsageError, match=r"written with data.order=.* of|written with data.order=full"):
            loader(blocks=read).load_state_dict(state)


def test_checkpoints_of_earlier_versions_have_the_full_order():
    state = loader(blocks=None).state_dict()
    del state["made_for"]["order"]
    loader(blocks=None).load_state_dict(state)
    with pytest.raises(UsageError, match=r"data\.order=full, found blocks of 7 rows, 3 in a window"):
        loader(blocks=SMALL).load_state_dict(state)


def test_a_balanced_order_has_no_blocks_and_this_is_logged_once(caplog):
    made, plain = loader(), loader(blocks=None)
    made.labels = plain.labels = torch.arange(203) % 5
    with caplog.at_level(logging.INFO, logger="ssl_lightning"):
        epochs = []
        for each in (made, plain):
            each.set_epoch(1)
            epochs.append([batch.index.tolist() for batch in each])
            each.set_epoch(2)
            list(each)
    assert epochs[0] == epochs[1]
    assert sum("data.order=blocks is not used" in record.message for record in caplog.records) == 1


def test_the_data_module_takes_it_and_logs_it(caplog):
    data = SyntheticImages(samples=64, batch_size=8, image_size=8, order="blocks", blocks=Blocks(4, 2))
    with caplog.at_level(logging.INFO, logger="ssl_lightning"):
        rows = torch.cat([batch.index for batch in data.train_dataloader()])
    assert rows.tolist() == rows_of(0, 0, 64, Blocks(4, 2)).tolist()
    assert "blocks of 4 consecutive images, 2 shuffled together" in caplog.text
    assert data.predict_dataloader().rows is None
    assert [row for batch in data.predict_dataloader() for row in batch.index.tolist()] == list(range(64))


def test_wrong_values_are_rejected():
    for wrong in ({"rows": 0}, {"window": 0}):
        with pytest.raises(UsageError, match="expected at least 1"):
            Blocks(**wrong)
