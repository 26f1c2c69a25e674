"""DeepCluster-v2: heads are centroids to the bit, banks hold what training saw, unseen rows count for nothing."""

from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.nn import functional as F

from ssl_lightning.callbacks import Recluster
from ssl_lightning.clustering import Clustering, FaissKMeans, KMeans, PCAWhitening
from ssl_lightning.data import Digits, View
from ssl_lightning.methods import DeepCluster, DeepClusterV2, SwAV
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.types import Batch
from tests.methods.quiet import QUIET

PLAIN = {"scale": (0.5, 1.0), "horizontal_flip": 0.0, "color_jitter": (0.0, 0.0, 0.0, 0.0), "grayscale": 0.0}
TWO = View(count=2, **PLAIN)
SMALL = {
    "num_clusters": 20,
    "backbone": ResNet18(8),
    "hidden": (32,),
    "projection": 16,
    "preprocessing": Preprocessing(16),
}
SPHERICAL = KMeans(metric="cosine", iterations=10, empty="keep")


class Spy(pl.Callback):
    """Keeps clusterings, heads and what each step saw."""

    def __init__(self) -> None:
        self.heads, self.losses, self.seen, self.banks = [], [], [], []
        self.views = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.heads.append([head.weight.detach().clone() for head in pl_module.heads])
        if batch_idx == 0:
            self.banks.append([bank.rows.clone() for bank in pl_module.banks])
            self.seen.append({})

    def on_before_backward(self, trainer, pl_module, loss):
        self.views = [view.clone() for view in pl_module._last_embeddings[1]]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        assert torch.equal(self.views[0], outputs["embeddings"])
        for row, *z in zip(batch.index.tolist(), *self.views, strict=True):
            self.seen[-1][row] = z


def v2(**options):
    pl.seed_everything(0, verbose=False)
    return DeepClusterV2(**(SMALL | options))


def fit(method, *callbacks, clusterer=SPHERICAL, epochs=2, batch_size=256, views=(TWO,), transform=None):
    data = Digits(batch_size=batch_size, views=list(views), image_size=16)
    trainer = pl.Trainer(
        **QUIET,
        max_epochs=epochs,
        callbacks=[Recluster(clusterer, transform), *callbacks],
    )
    trainer.fit(method, data)
    return trainer


def clusterings(method, rows=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        Clustering(
            torch.randint(20, (rows,), generator=generator),
            torch.zeros(rows),
            F.normalize(torch.randn(20, 16, generator=generator), dim=1),
            torch.full((20,), 1),
        )
        for _ in range(method.num_heads)
    ]


def batch(rows=12, sizes=(16, 16, 8)):
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(rows, 3, size, size, generator=generator) for size in sizes]
    return Batch(torch.arange(rows), views, torch.full((rows,), -1))


def test_a_step_is_the_algorithm_written_out_in_value_and_gradient():
    method = v2()
    method.on_reclustered(clusterings(method), 0)
    loss = method.training_step(batch(), 0)["loss"]
    learned = [parameter for parameter in method.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad(loss, learned)
    views = batch().views
    h = torch.cat([method.backbone(torch.cat(views[:2])), method.backbone(views[2])])
    z = F.normalize(method.projector(h), dim=1).split(12)
    total = 0.0
    for head in range(3):
        centroids, labels = method.heads[head].weight, method.pseudo_labels.rows[:, head].long()
        total = total + sum(F.cross_entropy(z[v] @ centroids.T / 0.1, labels) for v in range(3)) / 9
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    for own, slow in zip(ours, torch.autograd.grad(total, learned), strict=True):
        assert torch.allclose(own, slow, atol=1e-5, rtol=1e-4)


def test_the_loss_goes_to_zero_where_labels_are_what_the_heads_say():
    method = v2(temperature=1e-4)
    method.on_reclustered(clusterings(method), 0)
    same = batch()._replace(views=[batch().views[0]] * 2)
    method.eval()
    z = method.embed_views(same.views)[0]
    for head in range(3):
        method.pseudo_labels.rows[:, head] = method.heads[head](z).argmax(1).int()
    assert float(method.training_step(same, 0)["loss"].detach()) == pytest.approx(0.0, abs=1e-3)


def test_unseen_rows_contribute_exactly_nothing_and_a_batch_of_them_costs_zero():
    method = v2()
    found = clusterings(method)
    for clustering in found:
        clustering.labels[6:] = -1
    method.on_reclustered(found, 0)
    method.eval()
    whole = method.training_step(batch(), 0)["loss"]
    gradients = torch.autograd.grad(whole, method.projector.parameters())
    half = Batch(torch.arange(6), [view[:6] for view in batch().views], torch.full((6,), -1))
    part = method.training_step(half, 0)["loss"]
    assert float(whole.detach()) == pytest.approx(float(part.detach()), rel=1e-6)
    for a, b in zip(gradients, torch.autograd.grad(part, method.projector.parameters()), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    unseen = Batch(torch.arange(6, 12), [view[6:] for view in batch().views], torch.full((6,), -1))
    nothing = method.training_step(unseen, 0)["loss"]
    assert float(nothing.detach()) == 0.0
    assert all(float(g.abs().max()) == 0 for g in torch.autograd.grad(nothing, method.projector.parameters()))


@pytest.mark.parametrize("clusterer", [SPHERICAL, FaissKMeans(metric="cosine"), KMeans()], ids=repr)
def test_heads_are_the_centroids_to_the_bit_and_no_step_changes_them(clusterer, monkeypatch):
    made = []
    take_up = DeepClusterV2.on_reclustered
    monkeypatch.setattr(
        DeepClusterV2, "on_reclustered", lambda self, found, seed: (made.append(found), take_up(self, found, seed))
    )
    spy = Spy()
    method = v2()
    fit(method, spy, clusterer=clusterer)
    assert len(made) == 2
    steps = len(spy.heads) // 2
    for step, heads in enumerate(spy.heads):
        for head, clustering in zip(heads, made[step // steps], strict=True):
            assert torch.equal(head, clustering.centroids)
    assert not any(head.weight.requires_grad for head in method.heads)
    assert all(loss == loss for loss in spy.losses)  # no NaN, also not in the first epoch
    assert all(loss > 0 for loss in spy.losses)


def test_each_head_clusters_the_bank_of_its_view_from_another_start():
    method, spy = v2(), Spy()
    fit(method, spy, epochs=2)
    first, second = spy.banks[0]
    assert first.shape == (1438, 16)
    assert not torch.equal(first, second)
    heads = spy.heads[0]
    assert not torch.allclose(heads[0], heads[2])
    for head, bank in ((0, first), (1, second), (2, first)):  # a centroid is the direction of its members' mean
        labels = (bank @ heads[head].T).argmax(1)
        means = F.normalize(torch.zeros(20, 16).index_add_(0, labels, bank), dim=1)
        used = labels.bincount(minlength=20) > 0
        assert float((means[used] * heads[head][used]).sum(1).min()) > 0.97


def test_banks_hold_what_the_last_epoch_saw_and_rows_left_out_keep_theirs():
    method, spy = v2(), Spy()
    fit(method, spy, epochs=2)
    left_out = set(range(1438)) - set(spy.seen[0])
    assert len(left_out) == 1438 - 5 * 256
    rows = torch.tensor(sorted(left_out))
    for view in (0, 1):
        bank = spy.banks[1][view]
        for row, z in list(spy.seen[0].items())[::50]:
            assert torch.allclose(bank[row], z[view], atol=1e-6)
            assert not torch.allclose(bank[row], z[1 - view], atol=1e-3)
        assert torch.equal(bank[rows], spy.banks[0][view][rows])
    assert (method.pseudo_labels.rows >= 0).all()


def test_filling_the_banks_leaves_running_statistics_and_random_state_alone():
    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0 and trainer.current_epoch == 0:
                assert float(pl_module.backbone.body.bn1.running_mean.abs().max()) == 0.0
                assert int(pl_module.backbone.body.bn1.num_batches_tracked) == 0
                assert all(part.training for part in pl_module.modules())
                assert all(bank.valid.all() for bank in pl_module.banks)

    fit(v2(), Look())


def test_a_single_epoch_is_rejected_in_one_line():
    with pytest.raises(ValueError, match=r"max_epochs=1.*SwAV"):
        fit(v2(), epochs=1)


@pytest.mark.parametrize("kind", [DeepCluster, DeepClusterV2, SwAV])
def test_parameters_spread_over_processes_are_rejected_where_clusters_become_a_head(kind):
    method = kind(backbone=ResNet18(8))
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    method._trainer = Mock(spec=pl.Trainer, strategy=strategy, precision="32-true", datamodule=None)
    if kind is SwAV:
        method.setup("fit")
    else:
        with pytest.raises(ValueError, match=rf"found ModelParallelStrategy with {kind.__name__}.*SwAV.*strategy ddp"):
            method.setup("fit")


@pytest.mark.parametrize("dim", [16, 8])
def test_a_transform_of_the_banks_is_rejected_before_the_first_step(dim):
    method, spy = v2(), Spy()
    with pytest.raises(ValueError, match=r"found transform=PCAWhitening.*DeepClusterV2.*expected none: take it out"):
        fit(method, spy, transform=PCAWhitening(dim))
    assert method.banks[0].is_empty
    assert not spy.heads


def test_the_loss_does_not_jump_at_a_new_clustering_and_it_learns():
    spy = Spy()
    fit(v2(optimizer=lambda p: torch.optim.Adam(p, lr=1e-3)), spy, epochs=6, batch_size=64)
    steps = len(spy.losses) // 6
    ends = [sum(spy.losses[(e + 1) * steps - 5 : (e + 1) * steps]) / 5 for e in range(6)]
    starts = [sum(spy.losses[e * steps : e * steps + 5]) / 5 for e in range(6)]
    assert ends[-1] < starts[0] - 0.3
    assert all(starts[e + 1] < starts[0] + 0.1 for e in range(5))
