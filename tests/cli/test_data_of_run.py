"""validate, predict and embed with the checkpoint of a run use the images of that run; no result replaces another."""

import json
import shutil
import sys
from pathlib import Path

import pandas
import pytest
import torch
import yaml

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.entry import run
from ssl_lightning.runs.data_section import data_of_run
from ssl_lightning.runs.resume import computed, nested

QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.num_workers", "0"]
TINY = ["--model.backbone.width", "8", "--data.batch_size", "64", "--trainer.max_steps", "1"]
SOURCE = ["--data.samples", "150", "--data.test_samples", "40", "--data.image_size", "24", "--data.image_seed", "3"]
CLUSTERS = ["--trainer.callbacks.num_clusters", "8", "--trainer.callbacks.transform", "null"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run on 150 synthetic images of 24 pixels."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ssl-lightning"])
        given = ["--config", "simclr", "--config", "data/synthetic", *TINY, *SOURCE, *QUIET, "--run.name", "shapes"]
        assert run(["fit", *given]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "runs", tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    return tmp_path


CHECKPOINT = "runs/shapes/checkpoints/last.ckpt"


def test_predict_clusters_the_images_of_the_run(folder, caplog):
    with caplog.at_level("INFO"):
        assert run(["predict", "--config", "clusters", "--ckpt_path", CHECKPOINT, *CLUSTERS, *QUIET]) == 0
    table = pandas.read_parquet("runs/shapes-predict/clusters.parquet")
    assert len(table) == 150
    assert (
        "images: those of the run, from runs/shapes/checkpoints/step-1.ckpt; --config data/NAME or --data names others"
        in caplog.text
    )
    assert "trained at" not in caplog.text


def test_validate_evaluates_on_the_images_of_the_run(folder, capsys):
    assert run(["validate", "--config", "eval", "--ckpt_path", CHECKPOINT, *QUIET]) == 0
    ours = json.loads(Path("runs/shapes-validate/results.json").read_text())
    whole = ["--config", "data/synthetic", *SOURCE]
    assert run(["validate", "--config", "eval", *whole, "--ckpt_path", CHECKPOINT, *QUIET]) == 0
    given = json.loads(Path("runs/shapes-synthetic-validate/results.json").read_text())
    accuracies = {name for name in ours if "seconds" not in name}
    assert {name: ours[name] for name in accuracies} == {name: given[name] for name in accuracies}


@pytest.mark.parametrize("others", [["--config", "data/digits"], ["--data", "Digits"], ["--config", "mine.yaml"]])
def test_images_that_the_command_names_are_used(others, folder, caplog):
    Path("mine.yaml").write_text("data: {class_path: ssl_lightning.data.Digits}\n")
    given = ["--config", "clusters", *others, "--ckpt_path", CHECKPOINT, *CLUSTERS, *QUIET]
    assert run(["predict", *given, "--run.name", "other"]) == 0
    assert len(pandas.read_parquet("runs/other/clusters.parquet")) == 1438
    assert "those of the run" not in caplog.text


def test_an_option_changes_the_source_of_the_run(folder):
    given = ["--config", "clusters", "--ckpt_path", CHECKPOINT, "--data.samples", "90", *CLUSTERS, *QUIET]
    assert run(["predict", *given]) == 0
    assert len(pandas.read_parquet("runs/shapes-predict/clusters.parquet")) == 90


def test_a_checkpoint_apart_from_its_run_holds_the_data_itself(folder):
    for file in Path("runs/shapes/checkpoints").resolve().glob("step-1.*"):
        shutil.copy(file, file.name)
    given = ["--config", "clusters", "--ckpt_path", "step-1.ckpt", *CLUSTERS, *QUIET]
    assert run(["predict", *given, "--run.name", "apart"]) == 0
    assert len(pandas.read_parquet("runs/apart/clusters.parquet")) == 150


def test_predict_leaves_its_files_and_the_metrics_of_the_clusters(folder, caplog):
    given = ["--config", "clusters", "--ckpt_path", CHECKPOINT, *CLUSTERS, *QUIET]
    before = set(Path().rglob("*"))
    with caplog.at_level("INFO"):
        assert run(["predict", *given, "--trainer.callbacks.path", "out/mine"]) == 0
    written = ["out", "out/mine.parquet", "out/mine.safetensors", "runs/shapes-predict"]
    assert sorted(map(str, set(Path().rglob("*")) - before)) == [*written, "runs/shapes-predict/metrics.csv"]
    assert "metrics of the clusters: runs/shapes-predict/metrics.csv" in caplog.messages


def test_predict_that_writes_nothing_leaves_no_folder(folder):
    before = set(Path().rglob("*"))
    given = ["--config", "clusters", "--ckpt_path", CHECKPOINT, "--trainer.callbacks", "null", *QUIET]
    assert run(["predict", *given]) == 0
    assert set(Path().rglob("*")) == before


def test_a_second_result_replaces_the_first_with_a_line(folder, caplog):
    for _ in range(2):
        assert run(["predict", "--config", "clusters", "--ckpt_path", CHECKPOINT, *CLUSTERS, *QUIET]) == 0
    lines = [line for line in caplog.messages if "exists and will be replaced" in line]
    assert [line.partition(" ")[0] for line in lines] == [
        f"runs/shapes-predict/clusters.{ending}" for ending in ("safetensors", "parquet")
    ]


def test_a_second_evaluation_replaces_the_first_with_a_line(folder, caplog):
    for expected in ([], ["runs/mine/results.json exists and will be replaced"]):
        caplog.clear()
        assert run(["validate", "--config", "eval", "--ckpt_path", CHECKPOINT, "--run.name", "mine", *QUIET]) == 0
        assert [line for line in caplog.messages if "exists and will be replaced" in line] == expected


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_an_evaluation_of_nothing_is_one_line_and_leaves_no_folder(subcommand, folder, capsys):
    before = set(Path().rglob("*"))
    assert run([subcommand, "--config", "eval", "--ckpt_path", CHECKPOINT, "--data.probe_sets", "{}", *QUIET]) == 0
    assert set(Path().rglob("*")) == before
    assert "nothing was evaluated" in capsys.readouterr().out


ADDRESS = {"class_path": "ssl_lightning.data.UncuratedImages", "init_args": {"path": "wandb:me/project/images:v0"}}


@pytest.mark.parametrize("place", ["checkpoint", "config.yaml"])
@pytest.mark.parametrize("command", ["predict", "embed"])
def test_a_description_with_an_address_is_not_followed(command, place, folder, capsys):
    path, checkpoint = Path("runs/shapes/config.yaml"), Path(CHECKPOINT).resolve()
    if place == "checkpoint":
        described_as(checkpoint, {"data": ADDRESS})
    else:
        described_as(checkpoint, {})
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"data": ADDRESS}))
    given = ["--config", "clusters", "--ckpt_path", CHECKPOINT, *CLUSTERS, *QUIET]
    assert run([command, *(given if command == "predict" else [CHECKPOINT, "features.safetensors"])]) == 65
    assert "found the address 'wandb:me/project/images:v0' in a description" in capsys.readouterr().err


HIDDEN = {
    "a function": {"class_path": "torch.utils.collect_env.run", "init_args": {"command": "echo > MARKER"}},
    "another class": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "MARKER"}},
    "a function inside": {
        "class_path": "ssl_lightning.data.Digits",
        "init_args": {"views": [{"class_path": "os.mkdir", "init_args": {"path": "MARKER"}}]},
    },
    "a deep table": {"class_path": "ssl_lightning.data.Digits", "init_args": {".".join(90 * "a"): 1}},
}


@pytest.mark.parametrize("described", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("command", ["predict", "embed"])
def test_a_description_is_checked_before_anything_is_built(command, described, folder, capsys):
    described_as(Path(CHECKPOINT).resolve(), {"data": described})
    given = ["--config", "clusters", "--ckpt_path", CHECKPOINT, *CLUSTERS, *QUIET]
    try:
        code = run([command, *(given if command == "predict" else [CHECKPOINT, "features.safetensors"])])
    except SystemExit as left:
        code = left.code
    assert code in (2, 64, 65)
    assert "Traceback" not in capsys.readouterr().err
    assert not list(Path().rglob("*MARKER*"))
    assert not Path("features.safetensors").exists()


@pytest.mark.parametrize("key", ["", ".", "data", ".".join(10_000 * "a")])
def test_a_flat_table_that_this_package_has_not_written_is_no_configuration(key):
    assert nested({key: 1}).get("data") in (None, 1)


def described_as(checkpoint: Path, config: dict) -> None:
    """Give a checkpoint another configuration; it has no sidecar afterwards."""
    held = torch.load(checkpoint, weights_only=True)
    torch.save(held | {"config": computed(config)}, checkpoint)
    checkpoint.with_suffix(".json").unlink()


def test_the_checkpoint_counts_where_the_copy_for_people_was_edited(folder, caplog):
    path = Path("runs/shapes/config.yaml")
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"]["samples"] = 99
    path.write_text(yaml.safe_dump(config))
    assert run(["embed", CHECKPOINT, "features.safetensors"]) == 0
    assert len(FeatureFile.load("features.safetensors").rows) == 150
    (line,) = (line for line in caplog.messages if "differs from" in line)
    assert "found runs/shapes/config.yaml, which differs from step-1.ckpt: data.init_args.samples 150 -> 99" in line


def test_a_checkpoint_without_a_configuration_takes_that_of_its_run(folder, caplog):
    described_as(Path(CHECKPOINT).resolve(), {})
    with caplog.at_level("INFO"):
        assert run(["embed", CHECKPOINT, "features.safetensors"]) == 0
    assert len(FeatureFile.load("features.safetensors").rows) == 150
    assert "images: those of the run, from runs/shapes/config.yaml; --data names others" in caplog.text


def test_embed_takes_the_images_of_a_checkpoint_apart_from_its_run(folder):
    Path("config.yaml").write_text("data: {class_path: ssl_lightning.data.Digits}\n")  # of something else
    Path("copies").mkdir()
    copy = shutil.copy(Path(CHECKPOINT).resolve(), "copies/copy.ckpt")
    assert run(["embed", CHECKPOINT, "own.safetensors"]) == 0
    assert run(["embed", str(copy), "apart.safetensors"]) == 0
    own, apart = FeatureFile.load("own.safetensors"), FeatureFile.load("apart.safetensors")
    assert torch.equal(own.features, apart.features)
    assert own.metadata["data"] == apart.metadata["data"]


def test_embed_takes_the_images_that_the_command_names(folder, caplog):
    Path("mine.yaml").write_text("data: {class_path: ssl_lightning.data.SyntheticImages, init_args: {samples: 70}}\n")
    for named, images in (("mine.yaml", 70), ("data/digits", 1438)):
        assert run(["embed", CHECKPOINT, "features.safetensors", "--data", named]) == 0
        assert len(FeatureFile.load("features.safetensors").rows) == images
    assert "those of the run" not in caplog.text
    lines = [line for line in caplog.messages if "as in training" in line]
    assert lines[0] == "found image_size=16 in data/digits: images are embedded with image_size=24, as in training"


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_a_checkpoint_without_data_is_one_line(command, folder, capsys):
    checkpoint = shutil.copy(Path(CHECKPOINT).resolve(), "weights.ckpt")
    Path("weights.json").write_text("{}")
    described_as(Path(checkpoint), {})
    given = ["--config", "clusters", "--ckpt_path", checkpoint, *CLUSTERS, *QUIET]
    assert run([command, *(given if command == "predict" else [checkpoint, "features.safetensors"])]) == 64
    assert "found weights.ckpt without the data of its run; name the images with" in capsys.readouterr().err


@pytest.mark.parametrize("apart", [False, True])
def test_the_images_of_a_run_on_one_cluster_are_found_again(apart, folder):
    clusters = ["--config", "clusters", "--ckpt_path", CHECKPOINT, *CLUSTERS, *QUIET]
    assert run(["predict", *clusters, "--trainer.callbacks.path", "edge"]) == 0
    largest = pandas.read_parquet("edge.parquet").cluster.value_counts()
    subset = ["--data.subset.path", "edge.safetensors", "--data.subset.value", str(largest.index[0])]
    limits = ["--data.limits.max_pixels", "1000000"]
    given = ["--config", "simclr", "--config", "data/synthetic", *TINY, *SOURCE, *QUIET, *subset, *limits]
    assert run(["fit", *given, "--data.batch_size", "4", "--run.name", "expert"]) == 0
    checkpoint = "runs/expert/checkpoints/last.ckpt"
    if apart:
        checkpoint = shutil.copy(Path(checkpoint).resolve(), "expert.ckpt")
    assert data_of_run(checkpoint, "--data")["init_args"]["limits"]["max_pixels"] == 1000000
    assert run(["embed", checkpoint, "features.safetensors"]) == 0
    assert len(FeatureFile.load("features.safetensors").rows) == largest.iloc[0]


def test_the_file_of_a_balanced_run_is_an_input_by_its_content(folder, caplog, capsys):
    clusters = ["--config", "clusters", "--ckpt_path", CHECKPOINT, *CLUSTERS, *QUIET]
    assert run(["predict", *clusters, "--trainer.callbacks.path", "edge"]) == 0
    given = ["--config", "data/synthetic", *TINY, *SOURCE, *QUIET]
    fit = ["fit", "--config", "simclr", *given, "--run.name", "balanced", "--data.balance.path"]
    with caplog.at_level("INFO"):
        assert run([*fit, "edge.safetensors"]) == 0
        assert "balanced over 8 clusters of edge.safetensors: largest" in caplog.text
        shutil.copy("edge.safetensors", "moved.safetensors")
        assert run([*fit, "moved.safetensors"]) == 0
    assert "has finished with these inputs" in caplog.text
    assert run(["predict", *clusters, "--trainer.callbacks.path", "other", "--seed_everything", "5"]) == 0
    capsys.readouterr()
    assert run([*fit, "other.safetensors"]) == 64
    assert "balance_sha256 is that of another file" in capsys.readouterr().err
    for file in ("edge", "moved", "other"):
        Path(f"{file}.safetensors").unlink()
    assert run(["embed", "runs/balanced/checkpoints/last.ckpt", "features.safetensors"]) == 0
    assert run(["fit", "--config", "deepcluster", *given, "--data.balance.path", "edge.parquet"]) == 64
    expected = "give --model.sampler natural, or leave out data.balance"
    assert expected in capsys.readouterr().err


OTHER = ["--data", "SyntheticImages", "--data.samples", "30", "--data.test_samples", "20"]


@pytest.mark.parametrize(
    ("given", "size"), [(OTHER, 24), ([*OTHER, "--data.image_size", "16"], 16), (["--config", "data/synthetic"], 32)]
)
def test_other_images_are_prepared_as_in_training_unless_the_command_sets_it(given, size, folder, caplog):
    """The default of the class, 32, would be a third value that nobody has chosen; data/synthetic chooses it."""
    with caplog.at_level("INFO"):
        named = ["--ckpt_path", CHECKPOINT, "--run.name", "other", *given]
        assert run(["predict", "--config", "clusters", *named, *CLUSTERS, *QUIET]) == 0
    metadata = Clustering.load("runs/other/clusters.safetensors")[1]
    assert json.loads(metadata["data_config"])["init_args"]["image_size"] == size
    assert ("images are prepared as in training: image_size=24" in caplog.text) == (size == 24)
    assert ("it embeds images of" in caplog.text) == (size != 24)


def test_a_mean_that_is_not_used_is_logged(folder, caplog):
    given = ["--config", "clusters", "--ckpt_path", CHECKPOINT, "--data.mean", "[0.1, 0.2, 0.3]", *CLUSTERS, *QUIET]
    assert run(["predict", *given]) == 0
    assert "found data.mean=(0.1, 0.2, 0.3)" in caplog.text
    assert "images are normalized as in training" in caplog.text


def test_what_the_data_set_is_no_option_of_the_model(folder, capsys):
    assert run(["fit", "--config", "simclr", "--model.preprocessing.image_size", "64"]) == 64
    assert "give --data.image_size" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [
        {
            "data": {
                "class_path": "a",
                "init_args": {"views": [{"scale": [0.1, 1.0]}, {"count": 2}], "probe_sets": None},
            }
        },
        {"a": [], "b": {}, "c": [[1, 2], [3]]},
        {"b": list(range(12))},
        {"a": {"v2.0": 1, "v2": {"0": 2}}, "b": {"0": 1, "1": 2}, "c": {"x\\.y": [{"1.5": None}]}},
    ],
)
def test_a_flat_table_gives_the_configuration_again(config):
    assert nested(computed(config)) == config


@pytest.mark.parametrize(("config", "reported"), [("swav", True), ("simclr", False), ("eval", False)])
def test_a_method_that_is_not_that_of_the_checkpoint_is_reported(folder, caplog, config, reported):
    options = ["--trainer.limit_val_batches", "1", *QUIET]
    with caplog.at_level("INFO"):
        assert run(["validate", "--config", config, "--ckpt_path", CHECKPOINT, "--run.name", "other", *options]) == 0
    used = "the method of the checkpoint is used, and no setting of SwAV"
    assert (f"found the method SwAV and SimCLR in {CHECKPOINT}: {used}" in caplog.text) is reported
