"""LocalAggregation: warm-up and its end, clusters of every epoch, the memory, warm starts, and what is rejected."""

import math

import lightning.pytorch as pl
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from ssl_lightning.callbacks import Recluster
from ssl_lightning.clustering import KMeans
from ssl_lightning.data import Digits, View
from ssl_lightning.functional import instance_loss, local_aggregation_loss
from ssl_lightning.methods import InstanceRecognition, LocalAggregation
from ssl_lightning.models import Preprocessing, ResNet18
from tests.methods.quiet import QUIET

PER_EPOCH = 1438 // 256


class Spy(pl.Callback):
    """Keeps memory, labels, momentum and losses of every step."""

    def __init__(self):
        self.steps, self.versions, self.momenta = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = pl_module.bank.rows.clone(), pl_module.pseudo_labels.rows.clone()
        self.versions.append(pl_module.pseudo_labels.version)
        self.momenta.append(len(trainer.optimizers[0].state))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        bank, labels = self.before
        after = pl_module.bank.rows.clone()
        self.steps.append((bank, labels, batch.index, outputs["embeddings"], float(outputs["loss"].detach()), after))


def method(**options):
    settings = {
        "num_clusters": 40,
        "num_heads": 2,
        "num_neighbors": 60,
        "projection": 16,
        "preprocessing": Preprocessing(16),
    } | options
    return LocalAggregation(backbone=ResNet18(8), **settings)


def trainer(epochs, *callbacks):
    return pl.Trainer(
        **QUIET,
        max_epochs=epochs,
        callbacks=list(callbacks),
    )


def digits(**options):
    return Digits(batch_size=256, views=[View(scale=(0.5, 1.0), horizontal_flip=0.0)], image_size=16, **options)


def fit(epochs=2, recluster=None, **options):
    pl.seed_everything(0, verbose=False)
    model, spy = method(**options), Spy()
    trainer(epochs, recluster or Recluster(KMeans()), spy).fit(model, digits())
    return model, spy


def test_warm_up_is_instance_recognition_and_then_each_epoch_has_clusters_of_its_own():
    model, spy = fit(epochs=4, warmup_epochs=2)
    assert spy.versions == [0] * 2 * PER_EPOCH + [1] * PER_EPOCH + [2] * PER_EPOCH
    for step, (bank, labels, index, z, loss, _) in enumerate(spy.steps):
        if step < 2 * PER_EPOCH:
            expected = instance_loss(z, index, bank, model.temperature)
        else:
            expected = local_aggregation_loss(z, index, bank, labels, 60, model.temperature)
        assert loss == pytest.approx(float(expected), abs=1e-5)
    assert model.pseudo_labels.rows.shape == (1438, 2)
    assert not torch.equal(model.pseudo_labels.rows[:, 0], model.pseudo_labels.rows[:, 1])  # starts differ


def test_the_optimizer_starts_anew_with_the_first_clusters_and_only_then():
    _, spy = fit(epochs=3, warmup_epochs=1)
    fresh = [step for step, known in enumerate(spy.momenta) if known == 0]
    assert fresh == [0, PER_EPOCH]


def test_without_warm_up_the_memory_is_the_untrained_networks_view_of_the_images():
    model, spy = fit(epochs=1)
    assert spy.versions[0] == 1
    assert bool(model.bank.valid.all())
    bank = spy.steps[0][0]
    drawn = F.normalize(torch.randn(1438, 16), dim=1)
    assert float(bank.mean(0).norm()) > 3 * float(drawn.mean(0).norm())  # untrained embeddings are alike, draws are not


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_only_rows_of_the_batch_change_and_stay_on_the_sphere(momentum):
    _, spy = fit(epochs=2, warmup_epochs=1, momentum=momentum)
    for bank, _, index, z, _, after in spy.steps:
        expected = bank.clone()
        expected[index] = F.normalize(momentum * bank[index] + (1 - momentum) * z, dim=1)
        assert torch.allclose(after, expected, atol=1e-6)


def test_clusters_are_those_of_the_memory():
    _, spy = fit(epochs=2, warmup_epochs=1)
    bank, labels = spy.steps[PER_EPOCH][:2]
    for head in range(2):
        column = labels[:, head].long()
        means = torch.stack(
            [bank[column == k].mean(0) if (column == k).any() else bank.new_full((16,), 9.0) for k in range(40)]
        )
        seen = column >= 0  # an epoch drops its last rows
        assert int(seen.sum()) == PER_EPOCH * 256
        nearest = torch.cdist(bank, means).argmin(1)
        assert float((nearest == column)[seen].double().mean()) > 0.95  # k-means stops near its fixed point


def test_a_run_starts_from_a_checkpoint_of_instance_recognition(tmp_path):
    pl.seed_everything(0, verbose=False)
    first = InstanceRecognition(ResNet18(8), projection=16, preprocessing=Preprocessing(16))
    earlier = trainer(1)
    earlier.fit(first, digits())
    earlier.save_checkpoint(tmp_path / "ir.ckpt")
    model, spy = fit(epochs=1, warm_start=str(tmp_path / "ir.ckpt"))
    assert torch.allclose(spy.steps[0][0], first.bank.rows, atol=1e-6)
    assert spy.versions[0] == 1
    assert model.stage_files() == {"warm_start": str(tmp_path / "ir.ckpt")}
    fresh = method(warm_start=str(tmp_path / "ir.ckpt"))
    fresh.trainer = trainer(1)
    fresh.trainer.datamodule = digits()
    fresh.setup("fit")
    assert torch.equal(fresh.projector.weight, first.projector.weight)
    assert torch.equal(fresh.backbone.body.conv1.weight, first.backbone.body.conv1.weight)


def test_a_checkpoint_that_does_not_fit_is_rejected_by_name(tmp_path):
    pl.seed_everything(0, verbose=False)
    earlier = trainer(1)
    earlier.fit(InstanceRecognition(ResNet18(10), projection=16, preprocessing=Preprocessing(16)), digits())
    path = tmp_path / "ir.ckpt"
    earlier.save_checkpoint(path)
    with pytest.raises(ValueError, match=r"found a backbone in .*ir\.ckpt that is not the one of this run"):
        fit(epochs=1, warm_start=str(path))
    other, few = method(warm_start=str(path)), digits()
    few.training = few.training.select(torch.arange(100))
    with pytest.raises(ValueError, match="memory bank of 1438 other images than the 100 of this run"):
        trainer(1, Recluster(KMeans())).fit(other, few)
    with pytest.raises(ValueError, match=r"missing\.ckpt"):
        fit(epochs=1, warm_start=str(tmp_path / "missing.ckpt"))


def test_a_method_without_a_memory_is_no_start(tmp_path):
    from ssl_lightning.methods import RawPixels

    earlier = trainer(1)
    earlier.validate(RawPixels(preprocessing=Preprocessing(16)), digits(), verbose=False)
    path = tmp_path / "pixels.ckpt"
    earlier.save_checkpoint(path)
    with pytest.raises(ValueError, match="RawPixels, which has no memory bank"):
        fit(epochs=1, warm_start=str(path))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("num_neighbors", "found num_neighbors=1439 for 1438 images"),
        ("num_clusters", "found k=1439 clusters for 1438 rows"),
    ],
)
def test_more_neighbors_or_clusters_than_images_are_one_line_before_training(name, told):
    with pytest.raises(ValueError, match=told):
        fit(**{name: 1439})


def test_without_recluster_the_first_step_after_warm_up_reports_what_is_missing():
    class Nothing(pl.Callback):
        pass

    with pytest.raises(ValueError, match="add the Recluster callback"):
        fit(epochs=1, recluster=Nothing())


def test_neighbors_are_those_of_the_loss():
    model, _ = fit(epochs=1)
    index = torch.tensor([5, 900])
    found = model.neighbors(index)
    scores = model.bank.rows[index] @ model.bank.rows.T
    for place, own in enumerate(index.tolist()):
        assert set(found.rows[place, 1:].tolist()) == set(scores[place].topk(60).indices.tolist())
        labels = model.pseudo_labels.rows
        close = {int(j) for j in found.rows[place][found.close[place]]}
        assert close == {j for j in found.rows[place].tolist() if (labels[j] == labels[own]).any()}


def test_chance_is_ln_n_while_warming_up_alone():
    model, _ = fit(epochs=1, warmup_epochs=1)
    assert model.chance_loss == pytest.approx(math.log(1438))
    model, _ = fit(epochs=2, warmup_epochs=1)
    assert model.chance_loss is None


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"num_heads": 0}, {"warmup_epochs": -1}])
def test_numbers_out_of_range_are_rejected(options):
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        method(**options)


def test_a_image_that_was_never_seen_joins_no_cluster():
    """Two of five batches of an epoch of warm-up: the memory of all other images is as it was drawn."""
    pl.seed_everything(0, verbose=False)
    model, spy = method(num_clusters=20, warmup_epochs=1), Spy()
    short = pl.Trainer(**QUIET | {"limit_train_batches": 2}, max_epochs=2, callbacks=[Recluster(KMeans()), spy])
    short.fit(model, digits())
    seen = torch.zeros(1438, dtype=torch.bool)
    seen[torch.cat([step[2] for step in spy.steps[:2]])] = True
    _, labels, *_ = spy.steps[2]  # those of the first clustering
    assert labels.shape == (1438, 2)
    assert torch.equal(labels >= 0, seen.unsqueeze(1).expand(-1, 2))


def test_neighbors_may_be_requested_from_the_cpu_wherever_the_memory_is():
    model = method()
    with FakeTensorMode():
        model.bank.rows = torch.empty(100, 16, device="cuda")
        model.pseudo_labels.rows = torch.empty(100, 2, dtype=torch.int32, device="cuda")
        found = model.neighbors(torch.arange(5))
    assert found.rows.shape == (5, 61)
    assert {part.device.type for part in found} == {"cuda"}
