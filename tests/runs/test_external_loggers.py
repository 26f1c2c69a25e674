"""Calls and files that external loggers receive; other loggers are left alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from ssl_lightning.errors import diverged
from ssl_lightning.report.cluster_rows import COLUMNS, ClusterRow
from ssl_lightning.report.intervals import half_width
from ssl_lightning.runs import ExternalLoggers, MetricsTable, RunDirectory
from ssl_lightning.runs.experiment import group_and_job
from ssl_lightning.runs.external_logger import ExternalLogger, RunIdentity
from ssl_lightning.runs.external_loggers import MOST_IMAGES, Results


class Recorder(ExternalLogger):
    """An external logger that records its calls, and sends nothing."""

    name = version = ""

    def __init__(self):
        super().__init__()
        self.recorded = []

    def log_metrics(self, metrics, step=None):
        pass

    def __getattribute__(self, name):
        if name in ("settle", "resume_after", "alert", "close", "use_artifacts") or name.startswith("log_"):
            return lambda *arguments: self.recorded.append((name, *arguments))
        return super().__getattribute__(name)


@pytest.fixture
def recorded(tmp_path):
    logger = Recorder()
    return logger.recorded, ExternalLoggers([CSVLogger(tmp_path), logger], RunDirectory(tmp_path, "swav-cifar10-s3"))


def test_an_external_logger_receives_the_identity_settings_inputs_and_outcome_of_the_run(recorded, tmp_path):
    calls, external_loggers = recorded
    external_loggers.introduce("ab12", "SwAV", {"model": {"width": 8}}, ["me/p/x:v0"])
    with external_loggers.until_the_end():
        external_loggers.resume_after(7)
    with pytest.raises(KeyError), external_loggers.until_the_end():
        raise KeyError
    identity = RunIdentity(tmp_path / "swav-cifar10-s3", "swav-cifar10-s3", "ab12", "swav-cifar10", "SwAV")
    assert calls == [
        ("settle", identity),
        ("log_config", {"model": {"width": 8}}),
        ("use_artifacts", ["me/p/x:v0"]),
        ("resume_after", 7),
        ("close", True),
        ("close", False),
    ]


def test_a_loss_that_is_not_finite_is_one_alert(recorded):
    calls, external_loggers = recorded
    with pytest.raises(RuntimeError), external_loggers.until_the_end():
        raise RuntimeError
    error = diverged("a loss of nan at step 5")
    with pytest.raises(type(error)), external_loggers.until_the_end():
        raise error
    assert [call for call in calls if call[0] == "alert"] == [("alert", "non-finite values", str(error))]


def evaluate(external_loggers):
    table = MetricsTable(external_loggers.run.path / "metrics.csv")
    images = {"eval/test_images": 100.0}
    for step, top1 in enumerate([0.5, 0.875, 0.75]):
        table.log_metrics({"eval/knn/top1": top1, "eval/b/knn/top1": top1 / 2, "eval/seconds": 9.0} | images, step)


def test_a_run_that_ends_in_an_error_too_has_its_best_and_last_values(recorded):
    calls, external_loggers = recorded
    evaluate(external_loggers)
    with pytest.raises(KeyError), external_loggers.until_the_end():
        raise KeyError
    (summary,) = [call[1] for call in calls if call[0] == "log_summary"]
    assert summary["eval/knn/top1"] == 0.75
    assert (summary["best/eval/knn/top1"], summary["best/eval/knn/top1/step"]) == (0.875, 1)
    assert "best/eval/seconds" not in summary
    assert calls[-1] == ("close", False)


def test_a_damaged_metrics_table_does_not_hide_how_the_run_ended(recorded):
    calls, external_loggers = recorded
    external_loggers.run.path.mkdir()
    (external_loggers.run.path / "metrics.csv").write_bytes(b"\xff\x00\n\xff")
    with pytest.raises(KeyError), external_loggers.until_the_end():
        raise KeyError
    assert calls == [("close", False)]


@pytest.mark.parametrize("labels", [None, torch.tensor([[1], [0]])])
def test_an_external_logger_receives_a_few_images_the_tables_the_checkpoint_and_the_clusters(recorded, labels):
    calls, external_loggers = recorded
    evaluate(external_loggers)
    images = [Path(f"{name}.png") for name in ("curves", "cluster-curves", "cluster-0", "cluster-17", *"abcdefghi")]
    files, facts = [Path("last.ckpt"), Path("last.json")], {"step": 7}
    row = ClusterRow(4, 2, 0.5, "cat", Path("cluster-4.png"))
    backbone, described = {"conv1.weight": torch.ones(2)}, {"backbone": {"class_path": "ResNet18"}}
    external_loggers.hand_out(Results(images, files, backbone, described, labels, [row], ["a", "b"], facts))
    shown = [call[1:] for call in calls if call[0] == "log_image"]
    assert shown[:2] == [("report/curves", images[0]), ("report/cluster-curves", images[1])]
    assert len(shown) == MOST_IMAGES
    assert not any("cluster-0" in name or "cluster-17" in name for name, _ in shown)
    tables = {call[1]: call[2:] for call in calls if call[0] == "log_table"}
    assert tables["clusters"] == (COLUMNS, [(4, 2, 0.5, "cat", Path("cluster-4.png"))])
    assert tables["probes"] == (
        ("probe set", "metric", "untrained", "last", "95 % interval ±", "best", "step of best"),
        [
            ("a", "knn/top1", 0.5, 0.75, half_width(0.75, 100), 0.875, 1),
            ("b", "knn/top1", 0.25, 0.375, None, 0.4375, 1),
        ],
    )
    assert ("log_files", "checkpoint", files, facts) in calls
    assert ("log_tensors", "backbone", backbone, facts | described) in calls
    arrays = [(*call[:2], call[2].tolist(), call[3]) for call in calls if call[0] == "log_array"]
    expected = [] if labels is None else [("log_array", "assignments", np.asarray([[1], [0]]).tolist(), facts)]
    assert arrays == expected


NAMES = {
    "deepcluster-cifar10-s0": ("deepcluster-cifar10", "M"),
    "deepcluster-cifar10-s12": ("deepcluster-cifar10", "M"),
    "swav-digits-s0-validate": ("swav-digits", "validate"),
    "swav-digits-s0-cifar10-test": ("swav-digits", "cifar10-test"),
    "clusterfit-uncurated-k500-pretrain": ("clusterfit-uncurated-k500", "pretrain"),
    "divide_contrast-cifar10-k4-expert-3": ("divide_contrast-cifar10-k4", "expert-3"),
    "clusterfit-digits-k50-s2-fit": ("clusterfit-digits-k50", "fit"),
    "swav-k5-s1": ("swav-k5", "M"),
    "mine": ("mine", "M"),
    "my-s": ("my-s", "M"),
}


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_stages_of_an_experiment_are_a_group(name):
    assert group_and_job(name, "M") == NAMES[name]
