"""Sampling that is even over the clusters of a file, for any method."""

import logging
from collections import Counter
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssl_lightning.clustering import Clustering
from ssl_lightning.data import Balance, Digits, Subset
from ssl_lightning.data.dataset import InMemoryImages
from ssl_lightning.data.loader import TrainingLoader
from ssl_lightning.data.reading import CropSpec, RankShard
from ssl_lightning.data.views import View
from tests.data.test_module import SaveAndStop, Watcher, trainer  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
N = 1438
LONG_TAIL = torch.where(torch.arange(N) < 10, 1, torch.where(torch.arange(N) < 20, -1, 0))
"""Ten digits in cluster 1, ten in none, all others in cluster 0."""


@pytest.fixture
def stage(tmp_path):
    def write(labels=LONG_TAIL, data=None, name="clusters"):
        path = tmp_path / f"{name}.safetensors"
        data = Digits().fingerprint if data is None else data
        Clustering.without_features(labels, int(labels.max()) + 1).save(path, {"data": data})
        return str(path)

    return write


@pytest.fixture
def listed(tmp_path):
    def write(data, **columns):
        table = pa.table(columns).replace_schema_metadata({"data": data})
        pq.write_table(table, tmp_path / "list.parquet")
        return str(tmp_path / "list.parquet")

    return write


def appearances(model, epoch=0):
    return Counter(chain(*model.rows(epoch)))


def test_each_cluster_of_a_file_gets_the_same_number_of_samples(trainer, stage, caplog):  # noqa: F811
    model, path = Watcher(), stage()
    with caplog.at_level(logging.INFO):
        trainer().fit(model, Digits(batch_size=128, balance=Balance(path)))
    for epoch in (0, 1):
        rows = appearances(model, epoch)
        assert sum(rows[row] for row in range(10)) == pytest.approx(11 * 128 / 2, abs=60)
        assert not any(rows[row] for row in range(10, 20))
    line = (
        f"balanced over 2 clusters of {path}: largest 1418, smallest 10 images; images appear 0.51 to 72 times an epoch"
    )
    assert caplog.text.count(f"{line}; 10 images without a cluster are never sampled") == 1


def test_an_image_that_comes_again_has_other_views(trainer, stage):  # noqa: F811
    model = Watcher()
    trainer(max_epochs=1).fit(model, Digits(batch_size=128, balance=Balance(stage())))
    shown = [
        view.numpy().tobytes()
        for _, batch in model.batches
        for row, view in zip(batch.index.tolist(), batch.views[0], strict=True)
        if row == 3
    ]
    assert len(shown) > 50
    assert len(set(shown)) > 0.9 * len(shown)  # crops of 8 x 8 pixels may be equal


def test_half_power_lies_between_even_and_natural_sampling(trainer, stage):  # noqa: F811
    path, found = stage(), []
    for power in (0.0, 0.5, 1.0):
        model = Watcher()
        trainer(max_epochs=1).fit(model, Digits(batch_size=128, balance=Balance(path, power=power)))
        rows = appearances(model)
        found.append(sum(rows[row] for row in range(10)))
    assert found[0] <= 11
    assert found[1] == pytest.approx(1408 * 10**0.5 / (10**0.5 + 1418**0.5), abs=25)
    assert found[2] > 600


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("stop", [4, 11, 14])
def test_a_resumed_run_samples_what_an_uninterrupted_one_does(trainer, stage, tmp_path, stop, power):  # noqa: F811
    data = {"batch_size": 128, "balance": Balance(stage(), power=power)}
    whole, resumed = Watcher(), Watcher()
    trainer().fit(whole, Digits(**data))
    trainer(callbacks=[SaveAndStop(stop, tmp_path / "mid.ckpt")]).fit(Watcher(), Digits(**data))
    trainer().fit(resumed, Digits(**data), ckpt_path=tmp_path / "mid.ckpt", weights_only=True)
    assert resumed.rows() == whole.rows()[stop:]
    for (_, found), (_, expected) in zip(resumed.batches, whole.batches[stop:], strict=True):
        assert torch.equal(found.views[0], expected.views[0])
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_another_file_applies_from_the_epoch_after_the_resumed_one(trainer, stage, tmp_path):  # noqa: F811
    first = {"batch_size": 128, "balance": Balance(stage())}
    whole, resumed = Watcher(), Watcher()
    trainer().fit(whole, Digits(**first))
    trainer(callbacks=[SaveAndStop(4, tmp_path / "mid.ckpt")]).fit(Watcher(), Digits(**first))
    other = Digits(batch_size=128, balance=Balance(stage(torch.where(torch.arange(N) < 50, 0, -1), name="other")))
    trainer().fit(resumed, other, ckpt_path=tmp_path / "mid.ckpt", weights_only=True)
    assert resumed.rows(0) == whole.rows(0)[4:]
    assert set(chain(*resumed.rows(1))) <= set(range(50))
    without = Watcher()
    trainer().fit(without, Digits(batch_size=128), ckpt_path=tmp_path / "mid.ckpt", weights_only=True)
    assert without.rows(0) == whole.rows(0)[4:]
    assert max(appearances(without, 1).values()) == 1


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_any_number_of_processes_samples_the_batches_of_one(power):
    images = InMemoryImages(torch.zeros(200, 3, 8, 8, dtype=torch.uint8))
    labels = torch.where(torch.arange(200) < 7, 1, 0)

    def batches(share):
        loader = TrainingLoader(images, CropSpec([View()], 8, 0), 32, share)
        loader.keep_labels(labels, power)
        return [(batch.index.tolist(), batch.occurrence.tolist()) for batch in loader]

    one, parts = batches(RankShard()), [batches(RankShard(rank, 4)) for rank in range(4)]
    joined = [tuple(list(chain(*lists)) for lists in zip(*own, strict=True)) for own in zip(*parts, strict=True)]
    assert joined == one


def test_a_list_by_sample_id_and_an_image_that_it_lacks(listed):
    images = InMemoryImages(torch.zeros(5, 3, 2, 2, dtype=torch.uint8), sample_ids=torch.tensor([7, 3, 9, 1, 5]))
    path = listed(images.fingerprint, sample_id=[9, 7, 1, 3], group=[4, 4, -2, 0])
    assert Balance(path, column="group").labels_of(images).tolist() == [4, 0, 4, -1, -1]
    with pytest.raises(ValueError, match="no column 'cluster', only sample_id, group"):
        Balance(path).labels_of(images)


@pytest.mark.parametrize("listing", [False, True])
def test_a_file_of_all_images_serves_a_subset_of_them(stage, listed, listing, tmp_path):
    labels = torch.arange(N) % 7
    kept = torch.where(torch.arange(N) % 3 == 0, 0, -1)
    subset = Subset(stage(kept, name="kept"))
    path = stage(labels)
    if listing:
        ids = Digits().training.sample_ids
        path = listed(Digits().fingerprint, sample_id=ids.tolist(), cluster=labels.tolist())
    whole = Digits(subset=subset)
    assert torch.equal(Balance(path).labels_of(whole.training), labels[::3])
    of_subset = stage(labels[::3], whole.fingerprint, "of-subset")
    assert torch.equal(Balance(of_subset).labels_of(whole.training), labels[::3])


def test_mistakes_are_found_before_training(stage, listed, trainer):  # noqa: F811
    def found(balance):
        with pytest.raises(ValueError) as error:  # noqa: PT011  # the message is compared below
            trainer().fit(Watcher(), Digits(batch_size=128, balance=balance))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "data.balance.path=nowhere.parquet not found" in found(Balance("nowhere.parquet"))
    assert "was made for data abc" in found(Balance(stage(data="abc")))
    assert "has 3 rows, the data 1438" in found(Balance(stage(torch.tensor([0, 1, 0]))))
    assert "found no image with a cluster" in found(Balance(listed(Digits().fingerprint, sample_id=[0], cluster=[-1])))
    assert "data.balance.column='group' is not in" in found(Balance(stage(), column="group"))
    with pytest.raises(ValueError, match=r"found data\.balance\.power=2.0; expected 0"):
        Balance("x.parquet", power=2.0)


def test_a_method_that_balances_by_itself_is_rejected(stage):
    data = Digits(balance=Balance(stage()))
    with pytest.raises(ValueError, match=r"found data\.balance=.*--model\.sampler natural"):
        data.set_labels(torch.zeros(N, dtype=torch.int64))
