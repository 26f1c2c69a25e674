"""The sources: what they hold, that what they say is learnable is, and that YAML overlays mean what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from ssl_lightning.data import (
    CuratedImages,
    Digits,
    ImageModule,
    ProbeSet,
    SyntheticImages,
    UncuratedImages,
    UnionImages,
    View,
)
from ssl_lightning.data.batches import BatchMaker
from ssl_lightning.data.packs import open_labelled
from ssl_lightning.data.rendered import MOST_CLASSES, render_images
from ssl_lightning.errors import UsageError
from ssl_lightning.models import Preprocessing

OVERLAYS = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))


def features_and_labels(dataset):
    images, _ = dataset.read(torch.arange(len(dataset)))
    return images.flatten(1).float().numpy(), dataset.labels.numpy()


def test_digits_are_those_of_scikit_learn_every_fifth_for_test():
    reference, labels = load_digits(return_X_y=True)
    train, test = Digits().probes["digits"]
    assert (len(train), len(test)) == (1438, 359)
    for dataset, chosen in ((train, np.arange(1797) % 5 != 4), (test, np.arange(1797) % 5 == 4)):
        images, found = features_and_labels(dataset)
        assert np.array_equal(found, labels[chosen])
        for channel in images.reshape(len(images), 3, 64).transpose(1, 0, 2):
            assert np.abs(channel / 255 - reference[chosen] / 16).max() <= 0.5 / 255 + 1e-6


def test_rendered_images_are_functions_of_seed_row_and_class():
    rows, labels = torch.arange(600), torch.arange(600) % 10
    all_at_once = render_images(rows, labels, 32, 0)
    assert torch.equal(render_images(rows[500:510], labels[500:510], 32, 0), all_at_once[500:510])
    assert not torch.equal(render_images(rows, labels, 32, 1), all_at_once)
    # recorded once: another machine or version must render the same images
    assert SyntheticImages().fingerprint.startswith("df757e74d1abeccc")


def test_train_and_test_of_rendered_images_share_none():
    data = SyntheticImages(samples=300, test_samples=300)
    (train, _), (test, _) = (features_and_labels(dataset) for dataset in data.probes["synthetic"])
    assert len(np.unique(np.concatenate([train, test]), axis=0)) == 600


def test_the_class_of_a_rendered_image_can_be_learned_but_not_from_a_few_pixels():
    train, test = SyntheticImages(samples=3000, test_samples=500).probes["synthetic"]
    knn = KNeighborsClassifier(1).fit(*features_and_labels(train))
    assert 0.15 < knn.score(*features_and_labels(test)) < 0.6  # chance is 0.1


def test_every_class_up_to_the_limit_looks_different():
    dataset = render_images(torch.zeros(MOST_CLASSES, dtype=torch.int64), torch.arange(MOST_CLASSES), 32, 0)
    assert len(dataset.flatten(1).unique(dim=0)) == MOST_CLASSES
    with pytest.raises(ValueError, match=f"at most {MOST_CLASSES} exist"):
        SyntheticImages(classes=MOST_CLASSES + 1).setup("fit")


def test_a_curated_source_probes_itself_where_it_has_a_test_split(folder, png):
    files = {f"{split}/{label}/{n}.png": png(n) for split in ("train", "test") for label in "ab" for n in range(3)}
    data = CuratedImages(path=str(folder(files)))
    assert {name: (len(a), len(b)) for name, (a, b) in data.probes.items()} == {"images": (6, 6)}
    assert (data.num_samples, data.num_classes) == (6, 2)
    assert CuratedImages(path=data.path, test_split="val").probes == {}


def test_a_union_of_two_kinds_of_source_is_read_across_the_border(folder, tar, png, number_of):
    labelled = {f"train/{n % 2}/{n}.png": png(n) for n in range(4)} | {"test/0/9.png": png(9), "test/1/8.png": png(8)}
    uncurated = tar([(f"{n:03d}.png", png(n, (5, 4 + n))) for n in range(4, 7)], "uncurated.tar")
    sources = [CuratedImages(path=str(folder(labelled))), UncuratedImages(path=str(uncurated))]
    data = UnionImages(sources=sources, batch_size=7)
    images, valid = data.training.read(torch.arange(7))
    assert valid.all()
    assert [number_of(image) for image in images] == [0, 2, 1, 3, 4, 5, 6]
    assert data.labels.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert len(set(data.training.sample_ids.tolist())) == 7
    assert list(data.probes) == ["images"]
    batch = data.augment(next(iter(data.train_dataloader())), 0)
    assert sorted(batch.index.tolist()) == list(range(7))
    with pytest.raises(ValueError, match="expected at least one source"):
        UnionImages(sources=[]).setup("fit")


@pytest.mark.parametrize(
    ("option", "value"), [("batch_size", 8), ("order", "blocks"), ("std", (0.3, 0.3, 0.3)), ("views", [View()])]
)
def test_options_of_a_source_that_the_union_does_not_use_are_rejected(option, value):
    sources = [Digits(), SyntheticImages(samples=20, **{option: value})]
    with pytest.raises(UsageError, match=rf"found data\.sources\[1\]\.{option}=.*; expected data\.{option}, for"):
        UnionImages(sources=sources)


def test_a_union_probes_on_the_first_sources_sets_first():
    union = UnionImages(sources=[SyntheticImages(samples=20), Digits()])
    assert list(union.probes) == ["synthetic", "digits"]


def test_torchvision_folders_are_read_where_they_lie(tmp_path, monkeypatch):
    from torchvision import datasets

    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)

    class Downloaded:
        data, targets, classes = pixels, [0, 1, 2, 0, 1, 2], ["a", "b", "c"]

        def __init__(self, root, train, download):
            assert (root, train, download) == (str(tmp_path), True, False)

    monkeypatch.setattr(datasets, "CIFAR10", Downloaded)  # its own check sums forbid a small stand-in on disk
    (tmp_path / "cifar-10-batches-py").mkdir()
    dataset = open_labelled(str(tmp_path / "cifar-10-batches-py"), "train")
    images, _ = dataset.read(torch.arange(6))
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), pixels)
    assert (dataset.labels.tolist(), dataset.classes) == ([0, 1, 2, 0, 1, 2], ["a", "b", "c"])
    with pytest.raises(ValueError, match="no split 'val', only train, test"):
        open_labelled(str(tmp_path / "cifar-10-batches-py"), "val")


@pytest.fixture
def parse(monkeypatch):
    """Makes a source as the command line does."""
    monkeypatch.setattr("sys.argv", ["ssl-lightning"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls it in an old way
    return _parse


def _parse(*args):
    cli = LightningCLI(
        LightningModule,
        ImageModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=None,
        run=False,
        seed_everything_default=0,
        args=[
            "--model=ssl_lightning.methods.RawPixels",
            "--trainer.logger=false",
            "--trainer.accelerator=cpu",
            *args,
        ],
    )
    return cli.datamodule


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_every_overlay_makes_its_source_without_reading_a_file(overlay, parse):
    lines = overlay.read_text().splitlines()
    data = parse("--config", str(overlay), "--data.batch_size=64")
    given = yaml.safe_load(overlay.read_text())["data"]["init_args"]
    assert set(given) <= {"path", "sources", "imbalance", "image_size", "mean", "std", "probe_sets"}
    assert (data.batch_size, data.image_size, list(data.mean)) == (64, given["image_size"], given["mean"])
    assert lines[0].startswith("# ")
    assert any("ssl-lightning fit" in line for line in lines[:8])
    assert (data.probe_sets or {}).keys() == (given["probe_sets"] or {}).keys()


def test_views_and_probe_sets_come_from_the_command_line(parse):
    data = parse(
        "--data=Digits",
        '--data.views+={"count": 2, "color_jitter": [0.2, 0.2, 0.2, 0.05]}',
        '--data.views+={"size": 0.5}',
        '--data.probe_sets={"d": {"train": "digits/train", "test": "digits/test"}}',
        '--data.subset={"path": "x.parquet", "value": 3}',
    )
    assert data.views == [View(count=2, color_jitter=(0.2, 0.2, 0.2, 0.05)), View(size=0.5)]
    assert data.probe_sets == {"d": ProbeSet("digits/train", "digits/test")}
    assert (data.subset.path, data.subset.value) == ("x.parquet", 3)


def test_file_options_come_from_the_command_line(parse):
    data = parse(
        "--data=UncuratedImages", "--data.path=./a", '--data.include=["*.png"]', "--data.intensity_window=[0, 9]"
    )
    assert (data.include, data.intensity_window) == (["*.png"], (0.0, 9.0))
    given = '{"d": {"train": "a/train", "test": "a/test", "exclude": ["*.mask.png"]}}'
    data = parse(
        "--data=UncuratedImages", "--data.path=./a", f"--data.probe_sets={given}", "--data.intensity_window=minmax"
    )
    assert data.intensity_window == "minmax"
    assert tuple(data.probe_sets["d"].exclude) == ("*.mask.png",)


def test_help_texts_come_from_the_docstrings(capsys, parse):
    with pytest.raises(SystemExit):
        parse("--data.help=CuratedImages")
    output = capsys.readouterr().out
    assert "Rows of a training batch over all processes together" in " ".join(output.split())
    assert "The split for training" in " ".join(output.split())


def test_the_printed_config_can_be_read_back(capsys, tmp_path, parse):
    with pytest.raises(SystemExit):
        parse("--data=Digits", "--data.views+={}", "--print_config")
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    assert parse("--config", str(tmp_path / "config.yaml")).views == [View()]


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_the_statistics_of_an_overlay_are_those_of_its_images(overlay, pack, parse):
    data = parse("--config", str(overlay))
    if overlay.stem == "folder":
        pytest.skip("a user's own images")
    if overlay.stem == "pool":
        assert set(data.mean) == set(parse("--config", str(overlay.with_stem("uncurated"))).mean)
        pytest.skip("the images of data/uncurated")
    if overlay.stem in ("cifar10", "cifar10_longtail", "cifar10_mixed", "uncurated", "union"):
        for name in ("cifar10.tar.xz", "uncurated-*.tar"):
            pack(name)
    rows = torch.arange(0, data.num_samples, 1 if data.num_samples < 2000 else 7)
    loader = data._sequential(data.training.select(rows), data.image_size)
    plain = BatchMaker([], Preprocessing(data.image_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 0, data.center_fraction)
    views = torch.cat([plain.center(raw).views[0] for raw in loader])
    configured = parse("--config", str(overlay))
    assert views.mean((0, 2, 3)).tolist() == pytest.approx(configured.mean, abs=0.01)
    assert views.std((0, 2, 3)).tolist() == pytest.approx(configured.std, abs=0.01)
