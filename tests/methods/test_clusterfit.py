"""ClusterFit: labels from a file, row by row, and what is rejected before a step."""

import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import Conv2d
from torch.nn import functional as F

from ssl_lightning.clustering import Clustering
from ssl_lightning.data import Digits, View
from ssl_lightning.methods import ClusterFit, RotationPrediction, SoftDistillation
from ssl_lightning.models import Preprocessing, ResNet18
from tests.methods.quiet import QUIET

N, K = 1438, 7


def digits(**options):
    return Digits(batch_size=256, views=[View(scale=(0.5, 1.0), horizontal_flip=0.0)], image_size=16, **options)


def write_clusters(path, labels, data, k=K):
    sizes = labels[labels >= 0].bincount(minlength=k)
    distances = torch.zeros(len(labels))
    Clustering(labels, distances, torch.zeros(k, 3), sizes, [0.0]).save(path, {"data": data, "checkpoint": "abc"})
    return str(path)


@pytest.fixture(scope="module")
def fingerprint():
    return digits().fingerprint


@pytest.fixture
def drawn():
    return torch.randint(K, (N,), generator=torch.Generator().manual_seed(0))


class Spy(pl.Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append((batch.index, outputs["scores"], float(outputs["loss"].detach())))


def fit(clusters, data=None, k=K, epochs=1):
    pl.seed_everything(0, verbose=False)
    model, spy = ClusterFit(clusters, k, backbone=ResNet18(8), preprocessing=Preprocessing(16)), Spy()
    trainer = pl.Trainer(
        **QUIET,
        max_epochs=epochs,
        callbacks=[spy],
    )
    trainer.fit(model, data or digits())
    return model, spy


def test_each_image_learns_the_cluster_of_its_row_whatever_order_it_comes_in(tmp_path, drawn, fingerprint):
    model, spy = fit(write_clusters(tmp_path / "c.safetensors", drawn, fingerprint), epochs=2)
    for index, scores, loss in spy.steps:
        assert loss == pytest.approx(float(F.cross_entropy(scores, drawn[index])), abs=1e-5)
    seen = torch.cat([index for index, *_ in spy.steps])
    assert not torch.equal(seen[:256], seen[:256].sort().values)  # arrival is not row order
    assert torch.equal(model.pseudo_labels.rows[:, 0].long(), drawn)
    assert model.chance_loss == pytest.approx(math.log(K))


def test_rows_without_a_cluster_contribute_nothing(tmp_path, drawn, fingerprint):
    drawn[::2] = -1
    _, spy = fit(write_clusters(tmp_path / "c.safetensors", drawn, fingerprint))
    for index, scores, loss in spy.steps:
        known = drawn[index] >= 0
        assert loss == pytest.approx(float(F.cross_entropy(scores[known], drawn[index][known])), abs=1e-5)


def test_labels_travel_in_the_checkpoint_and_the_file_is_needed_no_more(tmp_path, drawn, fingerprint):
    from ssl_lightning import load_model

    path = tmp_path / "c.safetensors"
    model, _ = fit(write_clusters(path, drawn, fingerprint))
    assert model.stage_files() == {"clusters": str(path)}
    model.trainer.save_checkpoint(tmp_path / "last.ckpt")
    path.unlink()
    loaded = load_model(tmp_path / "last.ckpt")
    assert torch.equal(loaded.pseudo_labels.rows, model.pseudo_labels.rows)
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(loaded.logits(images), model.eval().logits(images), atol=1e-6)


def seeded(make, seed=0):
    """The weights of each convolution of a method that is made after the seeding of a run."""
    pl.seed_everything(seed, verbose=False)
    modules = make(backbone=ResNet18(8), preprocessing=Preprocessing(16)).modules()
    return [module.weight.detach().flatten() for module in modules if isinstance(module, Conv2d)]


@pytest.mark.parametrize("second", [partial(ClusterFit, "c", K), partial(SoftDistillation, "t.ckpt", num_classes=4)])
def test_the_second_network_does_not_start_where_the_first_one_of_its_seed_did(second):
    first, found, again, other = seeded(RotationPrediction), seeded(second), seeded(second), seeded(second, 1)
    assert len(found) == len(first) == 20
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    for reference in (first, other):
        for a, b in zip(found, reference, strict=True):
            assert abs(float(F.cosine_similarity(a, b, dim=0))) < 5 / len(a) ** 0.5


def test_clusters_of_other_images_are_rejected_by_name(tmp_path, drawn, fingerprint):
    few = digits()
    few.training = few.training.select(torch.arange(N - 1))
    path = write_clusters(tmp_path / "c.safetensors", drawn, fingerprint)
    with pytest.raises(ValueError, match=r"c\.safetensors made for 1438 images .* expected the 1437 of this run"):
        fit(path, few)
    other = write_clusters(tmp_path / "other.safetensors", drawn, "0123456789abcdef")
    with pytest.raises(ValueError, match=r"other\.safetensors made for 1438 images 0123456789ab"):
        fit(other)


def test_images_in_another_order_are_other_images(tmp_path, drawn, fingerprint):
    turned = digits()
    turned.training = turned.training.select(torch.arange(N).flip(0))
    with pytest.raises(ValueError, match="in their order"):
        fit(write_clusters(tmp_path / "c.safetensors", drawn, fingerprint), turned)


def test_another_number_of_clusters_names_the_flag(tmp_path, drawn, fingerprint):
    with pytest.raises(ValueError, match=r"found 7 clusters in .*expected 9: give --model\.num_clusters 7"):
        fit(write_clusters(tmp_path / "c.safetensors", drawn, fingerprint), k=9)


def test_a_missing_or_truncated_file_is_one_line(tmp_path, drawn, fingerprint):
    with pytest.raises(ValueError, match="not a whole cluster file"):
        fit(str(tmp_path / "nowhere.safetensors"))
    path = tmp_path / "c.safetensors"
    write_clusters(path, drawn, fingerprint)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole cluster file"):
        fit(str(path))
