"""DeepCluster: what a new clustering does to head, momentum and sampler, and that it learns from its own labels."""

import lightning.pytorch as pl
import pytest
import torch

from ssl_lightning.callbacks import Recluster
from ssl_lightning.clustering import Clustering, KMeans, PCAWhitening
from ssl_lightning.data import Digits, View
from ssl_lightning.functional import pseudo_label_loss
from ssl_lightning.methods import ClusterFit, DeepCluster, DeepClusterV2, RawPixels, SwAV
from ssl_lightning.models import AlexNet, Preprocessing, ResNet18
from ssl_lightning.types import Batch


class Spy(pl.Callback):
    """Keeps what the optimizer and the loader held around each clustering."""

    def __init__(self) -> None:
        self.head_momentum, self.body_momentum, self.heads, self.rows = [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        state = trainer.optimizers[0].state
        self.head_momentum.append([state[p].get("momentum_buffer") for p in pl_module.head.parameters() if p in state])
        weight = pl_module.backbone.body.conv1.weight
        self.body_momentum.append(state[weight]["momentum_buffer"].clone() if weight in state else None)
        self.heads.append(pl_module.head.linear.weight.detach().clone())
        self.rows.append(batch.index)


def fit(method, epochs, *callbacks, **options):
    options = {
        "batch_size": 256,
        "views": [View(scale=(0.7, 1.0), horizontal_flip=0.0, color_jitter=(0.0, 0.0, 0.0, 0.0), grayscale=0.0)],
    } | options
    data = Digits(**options)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=list(callbacks),
    )
    trainer.fit(method, data)
    return trainer, data


def deepcluster(**options):
    pl.seed_everything(0, verbose=False)
    return DeepCluster(**({"num_clusters": 20, "backbone": ResNet18(8), "preprocessing": Preprocessing(16)} | options))


def test_a_new_clustering_resets_the_head_without_momentum_and_leaves_the_bodys_alone():
    spy = Spy()
    fit(deepcluster(), 2, Recluster(KMeans()), spy)
    steps = len(spy.heads) // 2
    assert all(buffer is None for buffers in spy.head_momentum for buffer in buffers)  # momentum 0, at every step
    assert spy.body_momentum[steps] is not None
    assert spy.body_momentum[steps].abs().max() > 0
    head = spy.heads[steps]
    assert float(head.std()) == pytest.approx(0.01, rel=0.1)
    assert not torch.allclose(head, spy.heads[steps - 1], atol=1e-3)


def test_the_head_is_a_parameter_group_of_its_own_as_a_second_sgd_without_momentum():
    method = deepcluster()
    optimizer = method.configure_optimizers()
    body, head = optimizer.param_groups
    assert (body["momentum"], head["momentum"]) == (0.9, 0.0)
    assert {id(p) for p in head["params"]} == {id(p) for p in method.head.parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(method.parameters()))


def test_one_step_equals_two_sgds_written_out():
    method = deepcluster()
    method.pseudo_labels.assign([clustering(torch.arange(8) % 20)])
    optimizer = method.configure_optimizers()
    batch = Batch(torch.arange(8), [torch.randn(8, 3, 16, 16)], torch.full((8,), -1))
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        method.training_step(batch, 0)["loss"].backward()
        gradients = {name: p.grad.clone() for name, p in method.named_parameters()}
        optimizer.step()
    after = dict(method.named_parameters())
    name = "head.linear.weight"
    decayed = gradients[name] + 1e-5 * (after[name] + 0.05 * gradients[name])  # wd on the weight before the step
    assert torch.allclose(after[name] + 0.05 * decayed, after[name] + 0.05 * gradients[name], atol=1e-6)
    assert not torch.equal(before[name], after[name])


def test_balanced_sampling_is_even_over_clusters_and_natural_sampling_follows_their_sizes():
    spy, natural = Spy(), Spy()
    method = deepcluster()
    _, data = fit(method, 1, Recluster(KMeans()), spy, batch_size=719)
    labels = method.pseudo_labels.rows[:, 0]
    counts = labels[torch.cat(spy.rows)].bincount(minlength=20)
    sizes = labels.bincount(minlength=20)
    used = counts[sizes > 0]
    quota = data.num_samples // len(used) + 1
    assert int((used - quota).abs().sort().values[-2]) <= 1  # the last cluster loses what is cut off
    fit(deepcluster(sampler="natural"), 1, Recluster(KMeans()), natural, batch_size=719)
    assert torch.cat(natural.rows).unique().numel() == 1438


def test_alexnet_is_clustered_before_its_last_relu_and_the_head_opens_with_it():
    method = DeepCluster(5, backbone=AlexNet(), sobel=True).eval()
    images = torch.randn(2, 3, 64, 64)
    features = method.embed(images)
    assert (features < 0).any()
    assert method.head.rectify
    assert torch.equal(method.head(features), method.head.linear(features.relu()))


def test_the_sobel_stem_is_frozen():
    method = deepcluster(sobel=True)
    learned = {id(p) for group in method.parameter_groups() for p in group["params"]}
    assert not any(id(p) in learned for p in method.stem.parameters())
    assert method.stem.kernels.requires_grad is False


def test_labels_of_the_data_never_reach_the_loss():
    method = deepcluster()
    method.pseudo_labels.assign([clustering(torch.arange(8) % 20)])
    views = [torch.randn(8, 3, 16, 16)]
    method.eval()
    losses = {
        float(method.training_step(Batch(torch.arange(8), views, labels), 0)["loss"].detach())
        for labels in (torch.full((8,), -1), torch.arange(8))
    }
    assert len(losses) == 1


def test_its_own_pseudo_labels_can_be_learned():
    method = deepcluster()
    _, data = fit(method, 6, Recluster(KMeans(), PCAWhitening(16), every_n_epochs=100), batch_size=64)
    method.eval()
    with torch.no_grad():
        losses = [
            pseudo_label_loss([method.head(method(batch.views[0]))], method.pseudo_labels[batch.index])
            for batch in (data.center(raw) for raw in data.predict_dataloader())
        ]
    assert float(torch.stack(losses).mean()) < 2.0  # ln 20 = 3.0


def test_more_clusters_than_images_are_rejected_before_any_is_embedded(monkeypatch):
    monkeypatch.setattr(DeepCluster, "embed", lambda *_: pytest.fail("an image was embedded"))
    message = "found k=1439 clusters for 1438 rows; lower num_clusters or give more images"
    for method in (
        deepcluster(num_clusters=1439),
        DeepClusterV2(1439, backbone=ResNet18(8), preprocessing=Preprocessing(16)),
    ):
        with pytest.raises(ValueError, match=message):
            fit(method, 1, Recluster(KMeans()), views=[View(), View()])
    deepcluster(num_clusters=1438).reject_few(1438)
    SwAV(1439, backbone=ResNet18(8)).reject_few(1438)  # prototypes are no clusters of the images
    ClusterFit("edge.safetensors", 1439, ResNet18(8)).reject_few(1438)  # nor are those that another run has made


def test_a_method_without_clusters_rejects_the_callback_in_one_line():
    with pytest.raises(ValueError, match=r"take it out of trainer\.callbacks"):
        Recluster(KMeans()).on_fit_start(
            pl.Trainer(accelerator="cpu", logger=False), RawPixels(preprocessing=Preprocessing(16))
        )
    with pytest.raises(ValueError, match="nothing to train"):
        fit(RawPixels(preprocessing=Preprocessing(16)), 1)


def clustering(labels):
    return Clustering(labels, torch.zeros(len(labels)), torch.zeros(20, 2), labels.bincount(minlength=20))
