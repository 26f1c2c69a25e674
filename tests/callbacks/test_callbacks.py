"""The schedule of Recluster, ProbeFeatures without side effects, the files of WriteClusters, the rows of Throughput."""

import math
import os
import time

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import normalized_mutual_info_score

from ssl_lightning.callbacks import ProbeFeatures, Recluster, Throughput, WriteClusters, throughput
from ssl_lightning.callbacks.embed import embed_dataset, eval_mode
from ssl_lightning.clustering import Clusterer, Clustering, KMeans, PCAWhitening, cluster_metrics
from ssl_lightning.data import Digits, SyntheticImages, UncuratedImages, View
from ssl_lightning.data.reading import TaskReader
from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation import KNN, FewShot, LinearProbe
from ssl_lightning.methods import DeepCluster, DeepClusterV2, RawPixels, RotationPrediction
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.runs import MetricsTable
from ssl_lightning.runs.metrics import read_rows


def method(**options):
    pl.seed_everything(1, verbose=False)
    return DeepCluster(**({"num_clusters": 12, "backbone": ResNet18(8), "preprocessing": Preprocessing(16)} | options))


def trainer(*callbacks, **options):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    }
    return pl.Trainer(callbacks=list(callbacks), **(defaults | options))


class Counting(Clusterer):
    """Notes the moment of each clustering."""

    def __init__(self, trainer_of=None) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.trainer = trainer_of

    def __call__(self, features, k, seed=0, group=None) -> Clustering:
        self.calls.append((self.trainer.current_epoch, self.trainer.global_step, seed))
        return KMeans(iterations=2)(features, k, seed, group)


@pytest.mark.parametrize(
    ("options", "moments"),
    [
        ({}, [(0, 0), (1, 2), (2, 4), (3, 6)]),
        ({"every_n_epochs": 2}, [(0, 0), (2, 4)]),
        ({"every_n_steps": 3}, [(0, 0), (1, 3), (3, 6)]),
    ],
)
def test_clusters_are_made_before_the_first_step_and_then_on_schedule(options, moments):
    clusterer = Counting()
    run = trainer(Recluster(clusterer, **options), max_epochs=4)
    clusterer.trainer = run
    run.fit(method(), Digits(batch_size=719))
    assert [(epoch, step) for epoch, step, _ in clusterer.calls] == moments
    assert len({seed for *_, seed in clusterer.calls}) == len(moments)  # a new start each time


def test_the_features_pass_leaves_weights_buffers_modes_and_random_state_untouched():
    model = method(backbone=ResNet18(8))
    model.backbone.body.layer4.eval()  # a frozen part keeps its mode
    run = trainer()
    data = SyntheticImages(samples=64, batch_size=16, image_size=16)
    data.setup("fit")
    run.datamodule = data
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    rows, features = embed_dataset(run, model)
    assert rows.tolist() == list(range(64))
    assert features.shape == (64, 64)
    assert not features.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(state, torch.get_rng_state())


def test_features_are_those_of_the_center_view_whatever_the_batch_size():
    model, run = method(), trainer()
    found = []
    for size in (7, 64):
        data = SyntheticImages(samples=30, batch_size=16, eval_batch_size=size, image_size=16)
        data.setup("fit")
        run.datamodule = data
        found.append(embed_dataset(run, model)[1])
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_eval_mode_ends_also_when_something_goes_wrong():
    model = method()

    def go_wrong():
        with eval_mode(model):
            assert not model.training
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        go_wrong()
    assert model.training


def test_cluster_metrics_are_published_under_their_names(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    model = method()
    run = trainer(Recluster(KMeans(), PCAWhitening(8)), max_epochs=2, logger=table)
    data = Digits(batch_size=256)
    run.fit(model, data)
    rows = read_rows(tmp_path / "metrics.csv")
    last = rows[-1]
    one = torch.tensor([0])
    expected_names = cluster_metrics(torch.tensor([1]), one, one, one, [1.0])
    assert len(expected_names) == 10
    names = [*expected_names, "seconds"]
    assert all(last[f"cluster/{name}"] != "" for name in names)
    labels = model.pseudo_labels.rows[:, 0]
    expected = normalized_mutual_info_score(data.labels, labels, average_method="geometric")
    assert float(last["cluster/nmi_labels"]) == pytest.approx(expected, abs=1e-6)
    assert rows[0]["cluster/nmi_previous"] == ""
    assert "cluster/reassigned" in run.callback_metrics


class Far(Clusterer):
    """Every row in the first cluster, at a distance equal to the number of the call, and at ten times that before."""

    def __init__(self) -> None:
        self.far = 0.0

    def __call__(self, features, k, seed=0, group=None) -> Clustering:
        self.far += 1.0
        labels = torch.zeros(len(features), dtype=torch.int64)
        distances, total = torch.full((len(features),), self.far), self.far * len(features)
        centroids, sizes = torch.zeros(k, features.shape[1]), labels.bincount(minlength=k)
        return Clustering(labels, distances, centroids, sizes, [10 * total, total])


def test_the_objective_is_published_of_each_clustering_and_as_their_mean(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    model = DeepClusterV2(
        12, num_heads=2, backbone=ResNet18(8), hidden=(16,), projection=8, preprocessing=Preprocessing(16)
    )
    data = Digits(batch_size=719, views=[View(), View()], image_size=16)
    trainer(Recluster(Far()), max_epochs=2, logger=table).fit(model, data)
    last = read_rows(tmp_path / "metrics.csv")[-1]
    assert [float(last[f"cluster/{name}"]) for name in ("0/objective", "1/objective", "objective")] == [3.0, 4.0, 3.5]


def test_evaluating_changes_no_bit_of_what_is_trained():
    def train(*callbacks, **options):
        model = method()
        run = trainer(Recluster(KMeans()), *callbacks, max_epochs=2, **options)
        run.fit(model, Digits(batch_size=256))
        return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}

    probes = ProbeFeatures([LinearProbe(), KNN(), FewShot(episodes=20)])
    evaluations = train(probes, limit_val_batches=None, val_check_interval=2)
    alone = train()
    assert all(torch.equal(evaluations[name], alone[name]) for name in alone)


def test_probes_see_every_row_of_both_splits_once_and_in_order():
    features = {}

    class Look(KNN):
        def __call__(self, train, test):
            features["train"], features["test"] = train, test
            return {"look": 1.0}

    run = trainer(ProbeFeatures([Look()]), limit_val_batches=None)
    data = Digits(eval_batch_size=100, image_size=8)
    run.validate(RawPixels(True, data.preprocessing), data, verbose=False)
    reference_rows, test = data.probes["digits"]
    assert torch.equal(features["train"].labels, reference_rows.labels)
    assert torch.equal(features["test"].labels, test.labels)
    pixels = test.read(torch.arange(len(test)))[0].float() / 255
    expected = ((pixels - data.mean[0]) / data.std[0]).flatten(1)
    assert torch.allclose(features["test"].features, expected, atol=1e-5)
    assert features["train"].num_classes == 10
    assert float(run.callback_metrics["eval/look"]) == 1.0


@pytest.mark.parametrize(
    ("limit", "found"), [(1, "1 of 15 batches of train and 1 of 4"), (0.5, "7 of 15 batches of train and 2 of 4")]
)
@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_an_evaluation_of_some_rows_alone_is_reported_once(limit, found, subcommand, caplog):
    limits = {"limit_val_batches": limit, "limit_test_batches": limit}
    run, data = trainer(ProbeFeatures([KNN()]), **limits), Digits(eval_batch_size=100, image_size=8)
    for _ in range(2):
        getattr(run, subcommand)(RawPixels(True, data.preprocessing), data, verbose=False)
    (line,) = (record.getMessage() for record in caplog.records if "probe set" in record.getMessage())
    assert line.startswith(f"probe set digits: the first {found} of test alone are evaluated")


def test_an_evaluation_of_all_rows_reports_no_limit(caplog):
    for limit in (None, 1.0, 100):
        run, data = trainer(ProbeFeatures([KNN()]), limit_val_batches=limit), Digits(eval_batch_size=500, image_size=8)
        run.validate(RawPixels(True, data.preprocessing), data, verbose=False)
    assert "probe set" not in caplog.text


def test_two_probes_with_one_metric_are_rejected():
    run, data = trainer(ProbeFeatures([KNN(k=5), KNN(k=5, temperature=1.0)]), limit_val_batches=None), Digits()
    with pytest.raises(UsageError, match=r"found two probes with the metric knn5/top1, the second of them KNN\(k=5, "):
        run.validate(RawPixels(True, data.preprocessing), data, verbose=False)


def test_while_fitting_the_reference_set_is_a_fixed_subset_of_the_training_rows():
    sizes = []

    class Look(KNN):
        def __call__(self, train, test):
            sizes.append((len(train.labels), len(test.labels)))
            return {}

    run = trainer(ProbeFeatures([Look()]), Recluster(KMeans()), max_epochs=1, limit_val_batches=None)
    data = Digits(batch_size=512, reference_images=100)
    run.fit(method(), data)
    run.validate(method(), data, verbose=False)
    assert sizes == [(100, 359), (1438, 359)]


def test_clusters_are_written_for_the_next_stage_and_for_people(tmp_path, caplog):
    caplog.set_level("INFO", "ssl_lightning")
    data = Digits(eval_batch_size=100, image_size=8)
    writer = WriteClusters(str(tmp_path / "clusters"), 10, KMeans())
    run = trainer(writer)
    run.predict(RawPixels(False, data.preprocessing), data, return_predictions=False)
    clustering, metadata = Clustering.load(tmp_path / "clusters.safetensors")
    assert metadata["data"] == data.fingerprint
    table = pd.read_parquet(tmp_path / "clusters.parquet")
    assert list(table.columns) == ["row", "sample_id", "path", "cluster", "distance"]
    assert table["cluster"].tolist() == clustering.labels.tolist()
    assert len(table) == 1438
    assert table["path"].is_unique
    objective = clustering.objective[-1] / 1438
    assert float(run.callback_metrics["cluster/objective"]) == pytest.approx(objective)
    assert f"1438 images in 10 of 10 clusters, objective {objective:.4g} an image" in caplog.text
    score = normalized_mutual_info_score(data.labels, clustering.labels, average_method="geometric")
    assert score > 0.6  # k-means on the pixels of digits


@pytest.mark.parametrize("place", ["/proc/nothing/clusters", "file/clusters", "taken"])
def test_a_place_that_cannot_be_written_is_named_before_any_image_is_embedded(place, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.safetensors").mkdir()
    monkeypatch.setattr(RawPixels, "predict_step", lambda *_: pytest.fail("an image was embedded"))
    data = Digits(image_size=8)
    run = trainer(WriteClusters(str(tmp_path / place), 10, KMeans()))
    with pytest.raises(UsageError, match=r"safetensors, which cannot be .*; give another --trainer\.callbacks\.path"):
        run.predict(RawPixels(False, data.preprocessing), data, return_predictions=False)


class Brightness(Clusterer):
    """By mean brightness: the same cluster and distance of an image in whatever order they come."""

    def __call__(self, features, k, seed=0, group=None) -> Clustering:
        brightness = features.mean(1)
        labels = torch.bucketize(brightness, brightness.quantile(torch.arange(1, k) / k))
        return Clustering(labels, brightness, torch.zeros(k, features.shape[1]), labels.bincount(minlength=k))


class Mixed(Digits):
    """The digits, with rows that arrive in random order."""

    def predict_dataloader(self):
        return self.views_dataloader()


def test_rows_that_arrive_out_of_order_leave_every_label_with_its_image(tmp_path):
    found = {}
    for source in (Digits, Mixed):
        data = source(eval_batch_size=100, image_size=8)
        path = tmp_path / source.__name__
        run = trainer(WriteClusters(str(path), 10, Brightness()))
        run.predict(RawPixels(False, data.preprocessing), data, return_predictions=False)
        found[source], _ = Clustering.load(path.with_suffix(".safetensors"))
    arrived = torch.cat([batch.index for batch in data.predict_dataloader()])
    assert not torch.equal(arrived, arrived.sort().values)
    assert len(found[Digits].labels.unique()) == 10
    assert torch.equal(found[Mixed].labels, found[Digits].labels)
    assert torch.equal(found[Mixed].distances, found[Digits].distances)


def test_the_table_reports_of_each_file_its_number_cluster_and_distance(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(40, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{7 * number}.png")
    (folder / "77.png").write_bytes(b"no image")
    data = UncuratedImages(path=str(folder), image_size=8)
    run = trainer(WriteClusters(str(tmp_path / "clusters"), 4, KMeans()))
    run.predict(RawPixels(False, data.preprocessing), data, return_predictions=False)
    clustering, _ = Clustering.load(tmp_path / "clusters.safetensors")
    table = pd.read_parquet(tmp_path / "clusters.parquet")
    assert table["row"].tolist() == list(range(40))
    assert table["path"].tolist() == sorted(map(str, folder.iterdir()))  # the order of the names' bytes
    assert [str(folder / f"{number}.png") for number in table["sample_id"]] == table["path"].tolist()
    for line in table.itertuples():
        assert line.cluster == clustering.labels[line.row]
        if line.sample_id == 77:
            assert (line.cluster, math.isnan(line.distance)) == (-1, True)
            continue
        features = torch.from_numpy(np.asarray(Image.open(line.path)) / 255).permute(2, 0, 1).flatten()
        expected = (features - clustering.centroids[line.cluster]).square().sum()
        assert line.distance == pytest.approx(float(expected), rel=1e-3)


def test_names_that_are_no_text_are_in_the_table_as_their_bytes(tmp_path):
    folder = tmp_path / "é"
    folder.mkdir()
    for number, name in enumerate((b"a.png", b"bad\xff\xfe.png", "☃.png".encode())):
        with open(os.fsencode(folder) + b"/" + name, "wb") as stream:
            Image.fromarray(np.full((8, 8, 3), 80 * number, dtype=np.uint8)).save(stream, "PNG")
    data = UncuratedImages(path=str(folder), image_size=8)
    run = trainer(WriteClusters(str(tmp_path / "clusters"), 2, KMeans()))
    run.predict(RawPixels(False, data.preprocessing), data, return_predictions=False)
    table = pd.read_parquet(tmp_path / "clusters.parquet")
    assert table["path"].tolist() == [f"{folder}/{name}" for name in ("a.png", r"bad\xff\xfe.png", "☃.png")]
    assert len(Clustering.load(tmp_path / "clusters.safetensors")[0].labels) == 3


class Lopsided(Clusterer):
    """The first 10 images, none, the next 128, and the rest."""

    def __call__(self, features, k, seed=0, group=None) -> Clustering:
        labels = torch.bucketize(torch.arange(len(features)), torch.tensor([10, 138]), right=True)
        labels[labels > 0] += 1
        return Clustering(labels, torch.zeros(len(features)), torch.zeros(k, features.shape[1]), labels.bincount())


@pytest.mark.parametrize(("batch_size", "named"), [(128, "0 (10), 1 (0)"), (129, "0 (10), 1 (0), 2 (128)"), (None, "")])
def test_clusters_that_do_not_fill_a_batch_are_named_in_one_line(batch_size, named, tmp_path, caplog):
    data = Digits(eval_batch_size=1000, image_size=8)
    writer = WriteClusters(str(tmp_path / "clusters"), 4, Lopsided(), batch_size=batch_size)
    trainer(writer).predict(RawPixels(False, data.preprocessing), data, return_predictions=False)
    said = [record.message for record in caplog.records if "fewer images" in record.message]
    assert [line.partition(";")[0] for line in said] == (
        [f"found clusters of fewer images than a batch of {batch_size}: {named}"] if batch_size else []
    )
    assert all("--data.batch_size" in line and "num_clusters" in line for line in said)


def test_images_per_second_and_loss_are_rows_and_the_loss_is_the_mean_since_the_last_row(tmp_path):
    losses = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    table = MetricsTable(tmp_path / "metrics.csv")
    run = trainer(Recluster(KMeans()), Note(), Throughput(), max_epochs=2, log_every_n_steps=4, logger=table)
    run.fit(method(), Digits(batch_size=256))
    rows = {int(row["step"]): row for row in read_rows(tmp_path / "metrics.csv") if row["train/loss"]}
    assert list(rows) == [4, 8]
    assert float(rows[8]["train/loss"]) == pytest.approx(sum(losses[4:8]) / 4, rel=1e-5)
    assert float(rows[8]["train/lr"]) == 0.05
    assert float(rows[8]["train/images_per_second"]) > 0


def test_the_time_of_the_steps_contains_that_of_loading_and_no_evaluation(tmp_path, monkeypatch):
    read = TaskReader.__call__

    def slow(self, tasks):
        for batch in read(self, tasks):
            time.sleep(0.05)
            yield batch

    class Evaluating(pl.Callback):
        def on_validation_start(self, trainer, pl_module):
            time.sleep(0.5)

    monkeypatch.setattr(TaskReader, "__call__", slow)
    table = MetricsTable(tmp_path / "metrics.csv")
    run = trainer(
        Throughput(), Evaluating(), max_epochs=2, log_every_n_steps=5, logger=table, limit_val_batches=1, devices=1
    )
    began = time.perf_counter()
    run.fit(RotationPrediction(backbone=ResNet18(8), preprocessing=Preprocessing(16)), Digits(batch_size=256))
    whole = time.perf_counter() - began
    (_, row) = [row for row in read_rows(tmp_path / "metrics.csv") if row["train/loss"]]
    loading, seconds = float(row["train/loading_seconds"]), float(row["train/seconds"])
    assert 3 * 0.05 < loading < seconds
    assert seconds < whole - 0.5
    assert seconds - loading > 0.01


def test_the_first_row_after_a_resume_within_an_epoch_has_the_time_of_its_own_steps(tmp_path):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "2.ckpt")

    began = time.perf_counter()
    for start in (None, tmp_path / "2.ckpt"):
        table = MetricsTable(tmp_path / ("resumed.csv" if start else "first.csv"))
        run = trainer(Throughput(), Save(), max_epochs=1, log_every_n_steps=1, logger=table, devices=1)
        model = RotationPrediction(backbone=ResNet18(8), preprocessing=Preprocessing(16))
        run.fit(model, Digits(batch_size=256), ckpt_path=start)
    rows = [row for row in read_rows(tmp_path / "resumed.csv") if row["train/loss"]]
    assert [int(row["step"]) for row in rows] == [3, 4, 5]
    assert sum(float(row["train/seconds"]) for row in rows) < time.perf_counter() - began


def test_sums_of_a_checkpoint_are_taken_up_and_those_of_an_earlier_version_left_out():
    first, second, third = Throughput(), Throughput(), Throughput()
    for loss in (1.0, 4.0):
        first.loss.update(torch.tensor([loss]))
    second.load_state_dict(first.state_dict())
    assert float(second.loss.compute()) == 2.5
    third.load_state_dict({"loss": torch.tensor([[2.5, 2.0]])})
    assert third.loss.total.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("has_units", [True, False])
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_half_precision_on_a_cpu_that_is_slower_with_it_is_reported(caplog, monkeypatch, has_units, precision):
    monkeypatch.setattr(throughput, "_is_slow_in_bfloat16", lambda: not has_units)
    run = trainer(Recluster(KMeans()), Throughput(), max_epochs=1, precision=precision)
    run.fit(method(), Digits(batch_size=256))
    said = [record.message for record in caplog.records if "bfloat16 units" in record.message]
    assert len(said) == (precision == "bf16-mixed" and not has_units)
    assert all("--trainer.precision 32-true" in line for line in said)


@pytest.mark.parametrize(
    ("capabilities", "slow"),
    [
        ({"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": True}, False),
        ({"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": False}, True),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_units_are_looked_for_where_the_cpu_reports_what_it_has(monkeypatch, capabilities, slow):
    assert throughput._is_slow_in_bfloat16() in (True, False)
    monkeypatch.setattr(throughput.torch.cpu, "get_capabilities", lambda: capabilities)
    assert throughput._is_slow_in_bfloat16() == slow
