"""The DataModule under Lightning: by hand, over epochs, through checkpoints, and with labels that balance the order."""

import multiprocessing
import warnings
from itertools import chain

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ssl_lightning.data import CuratedImages, Digits, ProbeSet, Subset, SyntheticImages, UncuratedImages, View
from ssl_lightning.data.dataset import InMemoryImages
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.types import Batch, RawBatch


class Watcher(LightningModule):
    """A tiny model that records its batches."""

    def __init__(self, preprocessing=None):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)
        self.batches, self.evaluations, self.predicted = [], [], []
        self.preprocessing = preprocessing

    def training_step(self, batch, batch_idx):
        self.batches.append((self.current_epoch, batch))
        return sum(self.layer(view.mean((2, 3))).square().mean() for view in batch.views)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.evaluations.append((dataloader_idx, batch))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.evaluations.append((dataloader_idx, batch))

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        self.predicted.append(batch)
        return batch.index

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def rows(self, epoch=None):
        return [batch.index.tolist() for when, batch in self.batches if epoch in (None, when)]


class SaveAndStop(Callback):
    """A checkpoint after some steps, in the place where checkpoint callbacks write theirs."""

    def __init__(self, steps, path):
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


@pytest.fixture
def trainer(tmp_path):
    def make(**options):
        options = {"max_epochs": 2, "num_sanity_val_steps": 0, "enable_checkpointing": False, "logger": False} | options
        return Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            **options,
        )

    return make


@pytest.fixture(autouse=True)
def _lightning_speaks_of_its_own_future():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield


def test_fit_yields_every_row_of_the_digits_in_new_views_each_epoch(trainer):
    model, data = Watcher(), Digits(batch_size=128, views=[View(count=2), View(size=0.5)])
    trainer().fit(model, data)
    for epoch in (0, 1):
        rows = list(chain(*model.rows(epoch)))
        assert len(set(rows)) == len(rows) == 1438 // 128 * 128
    batch = model.batches[0][1]
    assert isinstance(batch, Batch)
    assert [tuple(view.shape[1:]) for view in batch.views] == [(3, 16, 16), (3, 16, 16), (3, 8, 8)]
    assert not torch.equal(batch.views[0], batch.views[1])
    assert torch.equal(batch.label, data.labels[batch.index])
    assert model.rows(0) != model.rows(1)
    assert {loader for loader, _ in model.evaluations} == {0, 1}


def test_views_are_a_function_of_seed_epoch_row_and_view(trainer):
    data = Digits(batch_size=16, seed=3)
    raw = data.training.read(torch.arange(40))[0]

    def view_of(rows, epoch=0, module=data):
        images = raw[rows]
        labels = torch.zeros(len(rows), dtype=torch.int64)
        made = RawBatch(torch.tensor(rows), images, labels, torch.ones(len(rows), dtype=torch.bool))
        return module.augment(made, epoch).views[0]

    together = view_of([5, 17, 30])
    assert torch.allclose(together[1:2], view_of([17]), atol=1e-6)
    assert torch.allclose(together.flip(0), view_of([30, 17, 5]), atol=1e-6)
    assert not torch.allclose(together, view_of([5, 17, 30], epoch=1), atol=1e-2)
    assert not torch.allclose(together, view_of([5, 17, 30], module=Digits(batch_size=16, seed=4)), atol=1e-2)


def test_an_image_that_comes_again_in_an_epoch_has_other_views(trainer):
    """Balanced sampling repeats images: each appearance has views of its own, the first that of any other order."""
    data = Digits(batch_size=16, seed=3)
    rows = torch.tensor([5, 17, 5, 5])
    images = data.training.read(rows)[0]
    valid = torch.tensor([True, False, True, True])
    views = data.augment(RawBatch(rows, images, rows, valid, torch.tensor([0, 0, 1, 2])), 0).views[0]
    first = data.augment(RawBatch(rows, images, rows, valid), 0).views[0]
    assert torch.allclose(views[0], first[0], atol=1e-6)
    assert not any(torch.allclose(views[a], views[b], atol=1e-2) for a, b in ((0, 1), (0, 2), (1, 2)))

    class Cluster(Watcher):
        def on_fit_start(self):
            self.trainer.datamodule.set_labels(torch.where(torch.arange(1438) < 50, 0, -1))

    model = Cluster()
    trainer(max_epochs=1).fit(model, Digits(batch_size=128))
    shown = [image.numpy().tobytes() for _, batch in model.batches for image in batch.views[0]]
    assert len(set(shown)) > 0.99 * len(shown) > 1000  # two crops of 8 x 8 pixels may be equal


@pytest.mark.parametrize("stop", [1, 5, 11, 14])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_checkpoint_in_mid_epoch_resumes_with_exactly_the_remaining_rows(trainer, tmp_path, stop, balanced):
    def data():
        module = Digits(batch_size=128)
        if balanced:
            module.set_labels(torch.arange(1438) % 7)
        return module

    whole = Watcher()
    trainer().fit(whole, data())
    trainer(callbacks=[SaveAndStop(stop, tmp_path / "mid.ckpt")]).fit(Watcher(), data())
    resumed = Watcher()
    trainer().fit(resumed, Digits(batch_size=128), ckpt_path=tmp_path / "mid.ckpt", weights_only=True)
    assert resumed.rows() == whole.rows()[stop:]
    for (_, found), (_, expected) in zip(resumed.batches, whole.batches[stop:], strict=True):
        assert torch.equal(found.views[0], expected.views[0])
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_labels_balance_the_order_from_the_next_epoch_on(trainer):
    class Relabel(Watcher):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                labels = torch.zeros(1438, dtype=torch.int64)
                labels[:10] = 1
                self.trainer.datamodule.set_labels(labels)

    model = Relabel()
    trainer().fit(model, Digits(batch_size=128))
    small = [sum(row < 10 for row in list(chain(*model.rows(epoch)))) for epoch in (0, 1)]
    assert small[0] <= 10
    assert small[1] == pytest.approx(11 * 128 / 2, abs=40)
    with pytest.raises(ValueError, match="found 3 labels for 1438"):
        Digits().set_labels(torch.zeros(3, dtype=torch.int64))


def test_labels_given_before_training_reach_its_first_epoch(trainer):
    class Cluster(Watcher):
        def on_fit_start(self):
            self.trainer.datamodule.set_labels(torch.where(torch.arange(1438) < 50, 0, -1))

    model = Cluster()
    trainer(max_epochs=1).fit(model, Digits(batch_size=128))
    assert set(chain(*model.rows())) <= set(range(50))


def test_evaluating_while_fitting_uses_a_reference_set_and_all_rows_otherwise(trainer):
    data = Digits(batch_size=128, reference_images=100, eval_batch_size=64)
    fitted, validated, tested = Watcher(), Watcher(), Watcher()
    trainer(max_epochs=1).fit(fitted, data)
    trainer().validate(validated, data, verbose=False)
    trainer().test(tested, data, verbose=False)

    def rows(model, loader):
        return [row for number, batch in model.evaluations if number == loader for row in batch.index.tolist()]

    assert len(rows(fitted, 0)) == 100
    assert rows(fitted, 0) == sorted(rows(fitted, 0))
    for model in (validated, tested):
        assert rows(model, 0) == list(range(1438))
    for model in (fitted, validated, tested):
        assert rows(model, 1) == list(range(359))


def test_predict_gives_all_training_rows_in_order_as_center_views(trainer):
    model, data = Watcher(), Digits(eval_batch_size=100)
    trainer().predict(model, data, return_predictions=False)
    rows = torch.cat([batch.index for batch in model.predicted])
    assert rows.tolist() == list(range(1438))
    raw = next(iter(data.predict_dataloader()))
    assert torch.allclose(data.center(raw).views[0], model.predicted[0].views[0])


def test_views_are_normalized_by_the_values_of_the_model(trainer):
    own, model = Watcher(), Watcher(Preprocessing(8, (0.0, 0.5, 1.0), (1.0, 0.5, 2.0)))
    data = Digits(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for each in (own, model):
        trainer().validate(each, data, verbose=False)
    plain, other = own.evaluations[0][1].views[0], model.evaluations[0][1].views[0]
    scale = torch.tensor([1.0, 0.5, 2.0]).view(3, 1, 1)
    assert torch.allclose(other * scale + torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1), plain, atol=1e-6)
    assert plain.min() >= 0
    assert plain.max() == pytest.approx(1, abs=0.05)


def test_probe_sets_are_evaluated_in_order_each_at_its_own_size(trainer):
    sets = {
        "shapes": ProbeSet("synthetic/train", "synthetic/test", image_size=24),
        "digits": ProbeSet("digits/train", "digits/test"),
    }
    model = Watcher()
    trainer().validate(model, Digits(probe_sets=sets), verbose=False)
    sizes = {loader: (batch.views[0].shape[-1]) for loader, batch in model.evaluations}
    counts = [sum(len(b.index) for n, b in model.evaluations if n == loader) for loader in range(4)]
    assert sizes == {0: 24, 1: 24, 2: 16, 3: 16}
    assert counts == [1024, 1024, 1438, 359]


def test_without_probe_sets_nothing_is_evaluated(trainer):
    model = Watcher()
    trainer(max_epochs=1).fit(model, Digits(probe_sets={}))
    trainer().validate(model, Digits(probe_sets={}), verbose=False)
    assert model.evaluations == []
    assert len(model.batches) == 5


def test_a_probe_set_that_is_none_is_rejected():
    with pytest.raises(ValueError, match="found probe set 'digits'; expected"):
        ProbeSet("digits", "digits/test").open()
    with pytest.raises(ValueError, match="found digits/val; expected digits/train or digits/test"):
        ProbeSet("digits/train", "digits/val").open()


def test_a_probe_set_of_no_pixels_is_rejected():
    with pytest.raises(ValueError, match="found image_size=0 of the probe set digits/test; expected at least 1"):
        ProbeSet("digits/train", "digits/test", image_size=0)


def test_a_split_without_labels_is_rejected_by_its_name_when_the_probe_set_is_opened(monkeypatch):
    images, labels = torch.zeros(6, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, -1, -1, -1, -1])

    def mixed(pack, part, options):
        return InMemoryImages(images, labels if part == "unlabeled" else labels.abs(), ["cat", "dog"])

    monkeypatch.setattr("ssl_lightning.data.probe_sets.open_labelled", mixed)
    ProbeSet("stl10_binary/train", "stl10_binary/test").open()
    line = "found 4 of 6 images without a label in the probe set stl10_binary/unlabeled; expected a label for each"
    for splits in (("unlabeled", "test"), ("train", "unlabeled")):
        with pytest.raises(ValueError, match=line):
            ProbeSet(*(f"stl10_binary/{split}" for split in splits)).open()


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_many_sizes_train_and_are_evaluated_without_the_broken_ones(trainer, folder, png, workers):
    files = {f"{split}/{n % 3}/{n:02d}.png": png(n, (8 + n, 12)) for n in range(30) for split in ("train", "test")}
    root = str(folder(files | {"train/1/99.png": b"broken"}))
    data = CuratedImages(
        path=root, batch_size=8, image_size=8, num_workers=workers, drop_last=False, max_unreadable=0.1
    )
    model = Watcher()
    trainer().fit(model, data)
    for epoch in (0, 1):
        assert sorted(chain(*model.rows(epoch))) == [row for row in range(31) if row != 20]
    assert (data.masked, round(data.masked_share, 3)) == (1, round(1 / 32, 3))
    assert data.training.name(20).endswith("train/1/99.png")
    assert sum(len(batch.index) for loader, batch in model.evaluations if loader == 0) == 2 * 30
    assert sum(len(batch.index) for loader, batch in model.evaluations if loader == 1) == 2 * 30
    assert model.batches[0][1].views[0].shape[1:] == (3, 8, 8)
    assert multiprocessing.active_children() == []


def test_a_subset_trains_on_its_rows_numbered_anew(trainer, tmp_path):
    from safetensors.torch import save_file

    labels = torch.arange(1024) % 4
    data = SyntheticImages()
    save_file({"labels": labels}, tmp_path / "clusters.safetensors", metadata={"data": data.fingerprint})
    part = SyntheticImages(batch_size=32, subset=Subset(str(tmp_path / "clusters.safetensors"), value=3))
    model = Watcher()
    trainer(max_epochs=1).fit(model, part)
    assert part.num_samples == 256
    assert sorted(chain(*model.rows())) == list(range(256))
    assert part.training.sample_ids.tolist() == list(range(3, 1024, 4))
    assert part.fingerprint != data.fingerprint


def test_making_one_reads_no_file():
    data = UncuratedImages(path="nowhere/at-all.tar", subset=Subset("no.parquet"))
    with pytest.raises(ValueError, match=r"nowhere/at-all.tar not found"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "data.batch_size=1; expected at least 2"),
        ({"reference_images": 0}, "data.reference_images=0"),
        ({"num_workers": -1}, "data.num_workers=-1"),
        ({"image_size": 0}, "data.image_size=0"),
        ({"eval_batch_size": 0}, "data.eval_batch_size=0; expected at least 1"),
        ({"image_size": 100_000}, "data.image_size=100000; expected at most 10000 pixels"),
        ({"eval_batch_size": -1}, "data.eval_batch_size=-1; expected at least 1"),
        ({"center_fraction": 1.5}, "data.center_fraction=1.5"),
    ],
)
def test_impossible_options_are_rejected_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(**options)


def test_a_data_set_smaller_than_a_batch_is_reported(trainer):
    with pytest.raises(ValueError, match=r"found 1438 images, fewer than one batch of 2000: lower data\.batch_size"):
        trainer().fit(Watcher(), Digits(batch_size=2000))


def test_a_standard_deviation_that_is_not_positive_is_rejected_by_its_name():
    with pytest.raises(ValueError, match=r"found data\.std=\(0\.2, 0\.0, 0\.2\)"):
        SyntheticImages(std=(0.2, 0.0, 0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (123.675, 116.28, 103.53)}, r"found data.mean=\(123.675, .*; expected fractions 0..1: divide by 255"),
        ({"mean": (0.5, 0.5, 2.0)}, "found data.mean=.*divide by 255"),
        ({"mean": (-2.1, 0.0, 0.0)}, r"found data.mean=.*; expected fractions 0..1$"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "found data.mean="),
        ({"std": (58.395, 57.12, 57.375)}, "found data.std=.*as fractions 0..1: divide by 255"),
        ({"max_unreadable": 5.0}, r"found data.max_unreadable=5.0; expected a fraction 0..1: 5 percent is 0.05"),
        ({"max_unreadable": -0.1}, "found data.max_unreadable=-0.1"),
        ({"center_fraction": 87.5}, "found data.center_fraction=87.5"),
    ],
)
def test_values_in_another_unit_are_rejected_in_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(**options)
