"""The clusters of the training images are files of every run: what they hold, what they cost, what cannot stop them."""

import errno
import io
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.callbacks import SaveClusters, embed, save_clusters
from ssl_lightning.checkpoints import read_checkpoint
from ssl_lightning.clustering import Clustering, saved
from ssl_lightning.clustering.saved import cluster_files, metadata_of, step_of
from ssl_lightning.entry import run as command
from ssl_lightning.errors import UsageError
from ssl_lightning.runs import ExternalLoggers
from tests.runs.conftest import differences

from .saved_clusters import check_newest

SMALL = [
    *("--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8"),
    *("--data.image_size", "8", "--data.batch_size", "256", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.check_val_every_n_epoch", "4"),
]
HEAD = ["--model.hidden", "[16]", "--model.projection", "8"]
METHODS = {
    "simclr": HEAD,
    "swav": [*HEAD, "--model.num_prototypes", "12"],
    "deepcluster": ["--model.num_clusters", "12"],
    "instance_recognition": ["--model.projection", "8"],
    "clusterfit/3_fit": [],
}
THREE = ["simclr", "swav", "deepcluster"]
CALLBACKS = """
trainer:
  callbacks:
    - class_path: ssl_lightning.callbacks.ProbeFeatures
      init_args: {probes: [{class_path: ssl_lightning.evaluation.KNN}]}
"""
RECLUSTER = """
    - class_path: ssl_lightning.callbacks.Recluster
      init_args: {clusterer: {class_path: ssl_lightning.clustering.KMeans}}
"""
OWN = ["--trainer.callbacks+", "ssl_lightning.callbacks.SaveClusters"]


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Trains, and returns the folder of the run."""
    monkeypatch.setattr("sys.argv", ["ssl-lightning"])

    def started(name, method, *options, epochs=1, code=0):
        (tmp_path / "callbacks.yaml").write_text(CALLBACKS + (RECLUSTER if method == "deepcluster" else ""))
        files = ["--config", method, "--config", str(tmp_path / "callbacks.yaml")]
        arguments = [*files, *SMALL, *METHODS[method], "--trainer.max_epochs", str(epochs), *options]
        try:
            found = command(["fit", *arguments, "--run.dir", str(tmp_path), "--run.name", name])
        except SystemExit as left:
            found = left.code
        assert found == code
        return tmp_path / name

    return started


def contents(run):
    """The bytes of the files of clusters, by name."""
    return {path.name: path.read_bytes() for path in (run / "clusters").iterdir()}


def test_pseudo_labels_of_every_epoch_are_saved_with_distances_and_centroids(fit):
    run = fit("a", "deepcluster", epochs=3)
    assert check_newest(run) == "pseudo-labels"
    files = cluster_files(run)
    steps = [step_of(file) for file in files]
    assert steps == [0, 5, 10]
    for epoch, file in enumerate(files):
        clustering, metadata = Clustering.load(file)
        assert (metadata["step"], metadata["epoch"]) == (str(step_of(file)), str(epoch))
        assert clustering.centroids.shape[0] == 12
        assert clustering.centroids.shape[1] > 0
        assert clustering.distances.isfinite().all()
        assert float(clustering.distances.sum()) == pytest.approx(clustering.objective[-1], rel=1e-4)


def test_of_many_epochs_a_bounded_number_is_kept(fit, monkeypatch):
    monkeypatch.setattr(save_clusters, "is_kept", partial(saved.is_kept, most=4))
    run = fit("a", "deepcluster", epochs=7)
    assert [metadata_of(file)["epoch"] for file in cluster_files(run)] == ["0", "2", "4", "6"]
    assert {path.suffix for path in (run / "clusters").iterdir()} == {".safetensors", ".parquet"}
    assert len(contents(run)) == 8


def test_an_interval_of_evaluations_saves_clusters_during_training(fit):
    options = [*OWN, "--trainer.callbacks.every_n_evaluations", "2", "--trainer.callbacks.num_clusters", "7"]
    run = fit("a", "simclr", *options, "--trainer.check_val_every_n_epoch", "1", epochs=5)
    assert check_newest(run) == "features"
    found = [metadata_of(file) for file in cluster_files(run)]
    assert [(each["step"], each["source"]) for each in found] == [
        ("10", "features"),
        ("20", "features"),
        ("25", "features"),
    ]
    assert len(Clustering.load(cluster_files(run)[-1])[0].sizes) == 7


def stopped_at(monkeypatch, step):
    """Training ends with an error before this step, as a killed process would."""

    def stop(self, batch, batch_idx):
        if self.trainer.global_step == step:
            raise KeyError("killed")

    monkeypatch.setattr("ssl_lightning.methods.method.Method.on_train_batch_start", stop, raising=False)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "step"), [("simclr", 13), ("swav", 5), ("deepcluster", 5), ("deepcluster", 7)])
def test_a_run_that_is_stopped_and_resumed_has_the_files_of_one_that_was_not(method, step, fit, monkeypatch):
    interval = [*OWN, "--trainer.callbacks.every_n_evaluations", "1", "--trainer.check_val_every_n_epoch", "1"]
    whole = fit("whole", method, *interval, epochs=4)
    with monkeypatch.context() as patch:
        stopped_at(patch, step)
        fit("parts", method, *interval, epochs=4, code=1)
    (whole.parent / "parts" / "clusters" / ".step-0.safetensors.tmp-1").touch()
    parts = fit("parts", method, *interval, epochs=4)
    found, expected = contents(parts), contents(whole)
    assert found.keys() == expected.keys()
    for name in (name for name in found if name.endswith(".safetensors")):
        assert Clustering.load(parts / "clusters" / name)[1] == Clustering.load(whole / "clusters" / name)[1]
    assert found == expected


def test_a_run_that_was_killed_after_its_last_checkpoint_has_them_too(fit, monkeypatch):
    whole = fit("whole", "swav")
    shutil.copytree(whole, whole.parent / "killed")
    for lost in (whole.parent / "killed" / "clusters", whole.parent / "killed" / "report"):
        shutil.rmtree(lost)
    (whole.parent / "killed" / "done.json").unlink()
    killed = fit("killed", "swav")
    assert contents(killed) == contents(whole)
    assert "clusters" in (killed / "report" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", THREE)
def test_training_is_the_same_to_the_bit_without_them(method, fit):
    interval = ["--trainer.check_val_every_n_epoch", "1"]
    often = [*OWN, "--trainer.callbacks.every_n_evaluations", "1"]
    saved = fit("with", method, *interval, *often, epochs=2)
    plain = fit("without", method, *interval, "--run.save_clusters", "false", epochs=2)
    assert not (plain / "clusters").exists()
    assert cluster_files(saved)
    checkpoints = [read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (saved, plain)]
    for name in ("state_dict", "optimizer_states", "per_sample_state"):
        assert not differences(*(checkpoint[name] for checkpoint in checkpoints))
    states = [checkpoint["callbacks"] for checkpoint in checkpoints]
    assert [name for name in states[1] if differences(states[0][name], states[1][name])] == []
    random = [checkpoint["random_state"][0] for checkpoint in checkpoints]
    for name in ("torch", "numpy"):  # the checks of shapes in tests take numbers of Python's own generator
        assert not differences(*(state[name] for state in random))


@pytest.fixture
def passed(monkeypatch):
    """The images of each pass over training images."""
    counts = []
    original = embed._embed

    def counted(loader, *arguments, **options):
        rows, features, unreadable = original(loader, *arguments, **options)
        counts.append(len(rows) + len(unreadable))
        return rows, features, unreadable

    monkeypatch.setattr(embed, "_embed", counted)
    return counts


def test_methods_without_pseudo_labels_have_one_bounded_pass_at_the_end(fit, passed, caplog):
    limited = fit("a", "simclr", *OWN, "--trainer.callbacks.max_images", "300", epochs=3)
    assert passed == [300]
    (file,) = cluster_files(limited)
    clustering, metadata = Clustering.load(file)
    assert int((clustering.labels >= 0).sum()) == int(clustering.sizes.sum()) == 300
    assert metadata["left_out"] == "1138"
    assert "clusters of 300 random images; 1,138 others are left out" in caplog.text


def test_pseudo_labels_and_memory_banks_need_no_pass_of_their_own(fit, passed):
    fit("a", "deepcluster", epochs=3)
    assert passed == [1438] * 3  # those of Recluster
    passed.clear()
    run = fit("b", "instance_recognition", epochs=1)
    assert passed == []
    assert check_newest(run) == "memory-bank"


def test_labels_of_an_earlier_stage_keep_its_distances(fit):
    earlier = fit("a", "simclr")
    (file,) = cluster_files(earlier)
    clustering, metadata = Clustering.load(file)
    stage = ["--model.clusters", str(file), "--model.num_clusters", str(len(clustering.sizes))]
    run = fit("b", "clusterfit/3_fit", *stage)
    assert check_newest(run) == "file"
    (copy,) = cluster_files(run)
    found, facts = Clustering.load(copy)
    assert torch.equal(found.distances, clustering.distances)
    assert torch.equal(found.centroids, clustering.centroids)
    assert (facts["layer"], facts["metric"], facts["step"]) == (metadata["layer"], metadata["metric"], "0")


def test_a_full_disk_is_one_warning(fit, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(save_clusters, "write_cluster_files", full)
    run = fit("a", "deepcluster", epochs=3)
    assert (run / "done.json").exists()
    lines = [record.getMessage() for record in caplog.records if "could not save the clusters" in record.getMessage()]
    assert len(lines) == 1
    assert "No space left on device" in lines[0]


def test_features_that_cannot_be_clustered_are_one_warning(fit, caplog):
    run = fit(
        "a", "simclr", *OWN, "--trainer.callbacks.clusterer", "FaissKMeans", "--trainer.callbacks.max_images", "1"
    )
    assert (run / "done.json").exists()
    assert "Traceback" not in caplog.text


def test_numbers_below_one_are_rejected():
    for name in ("num_clusters", "every_n_evaluations", "max_images"):
        with pytest.raises(UsageError, match=f"found {name}=0 of SaveClusters; expected at least 1"):
            SaveClusters(**{name: 0})


def png(seed):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("method", THREE)
def test_images_that_cannot_be_read_have_no_cluster(method, fit, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(80):
        (tmp_path / "images" / f"{number:02}.png").write_bytes(png(number)[: 40 if number in (3, 50) else None])
    images = ["--data", "UncuratedImages", "--data.path", str(tmp_path / "images"), "--data.num_workers", "0"]
    run = fit("a", method, *images, "--data.batch_size", "16", "--data.max_unreadable", "0.2")
    check_newest(run)
    for file in cluster_files(run):
        labels = Clustering.load(file)[0].labels
        assert (labels == -1).nonzero().flatten().tolist() == [3, 50]


def predict(tmp_path, run, *options):
    """Writes clusters of the trained network, and returns the exit code."""
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    arguments = ["--config", "clusters", "--ckpt_path", checkpoint, "--data.image_size", "8", *options]
    arguments += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    try:
        return command(["predict", *arguments, "--run.dir", str(tmp_path), "--run.name", "predict"])
    except SystemExit as left:
        return left.code


def test_predict_writes_the_nearest_prototypes_too(fit, tmp_path, capsys):
    run = fit("a", "swav")
    path = ["--trainer.callbacks.path", str(tmp_path / "edge"), "--trainer.callbacks.source", "prototypes"]
    assert predict(tmp_path, run, *path) == 0
    found, facts = Clustering.load(tmp_path / "edge.safetensors")
    (file,) = cluster_files(run)
    saved_clustering, _ = Clustering.load(file)
    assert len(found.sizes) == 12
    assert torch.equal(found.labels, saved_clustering.labels)
    assert torch.equal(found.centroids, saved_clustering.centroids)
    assert torch.allclose(found.distances, saved_clustering.distances, atol=1e-5)
    assert (facts["source"], facts["layer"], facts["metric"]) == ("prototypes", "projector", "cosine")


def test_prototypes_of_a_method_without_any_are_rejected_before_the_pass(fit, tmp_path, capsys):
    run = fit("a", "simclr")
    path = ["--trainer.callbacks.path", str(tmp_path / "edge"), "--trainer.callbacks.source", "prototypes"]
    assert predict(tmp_path, run, *path) == 64
    assert "found --trainer.callbacks.source prototypes with SimCLR, which has none" in capsys.readouterr().err
    assert not (tmp_path / "edge.safetensors").exists()


@pytest.mark.parametrize("method", ["swav", "deepcluster"])
def test_external_loggers_receive_the_table_and_the_assignments_of_every_method(method, fit, monkeypatch):
    received = []
    monkeypatch.setattr(ExternalLoggers, "__bool__", lambda _: True)
    monkeypatch.setattr(ExternalLoggers, "hand_out", lambda _, results: received.append(results))
    run = fit("a", method)
    (results,) = received
    clustering, _ = Clustering.load(cluster_files(run)[-1])
    assert torch.equal(results.labels, clustering.labels.unsqueeze(1))
    assert sum(row.size for row in results.clusters) == len(clustering.labels)
    assert all(row.sheet.is_file() for row in results.clusters)


def test_the_page_of_clusters_takes_the_folder_of_a_run(fit, tmp_path, capsys):
    run = fit("a", "simclr")
    assert command(["clusters", str(run), "--out", str(tmp_path / "page")]) == 0
    assert "1438 images in 28 of 28 clusters" in capsys.readouterr().out
    assert "those of k-means on the features" in (tmp_path / "page" / "index.html").read_text()
