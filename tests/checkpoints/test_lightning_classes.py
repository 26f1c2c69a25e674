"""What the table admits of Lightning works when a configuration names it, in a run of two epochs."""

from pathlib import Path

import pytest
import yaml

from ssl_lightning.checkpoints.kinds import library_classes
from ssl_lightning.entry import run

DEMO = str(Path(__file__).parents[2] / "configs" / "demo.yaml")
PLACES = {
    "callbacks": "callbacks+",
    "loggers": "logger",
    "profilers": "profiler",
    "strategies": "strategy",
    "accelerators": "accelerator",
    "plugins": "plugins",
}
ARGUMENTS = {
    "CSVLogger": {"save_dir": "csv"},
    "EarlyStopping": {"monitor": "train/loss"},
    "GradientAccumulationScheduler": {"scheduling": {0: 1}},
    "MixedPrecision": {"precision": "bf16-mixed", "device": "cpu"},
    "ModelPruning": {"pruning_fn": "l1_unstructured", "amount": 0.1},
    "SingleDeviceStrategy": {"device": "cpu"},
    "TensorBoardLogger": {"save_dir": "tables"},
}
ELSEWHERE = {
    "CUDAAccelerator": "not available",
    "FSDPStrategy": "requires a GPU",
    "MPSAccelerator": "not available",
    "ModelParallelStrategy": "found ModelParallelStrategy with DeepCluster",
    "RichModelSummary": "`rich`",
    "TensorBoardLogger": "tensorboard",
}
"""Classes that need a package, a device or a method that may be missing: the error is then one line."""


def admitted() -> list[str]:
    names = (name for name in library_classes() if name.startswith("lightning.pytorch."))
    return sorted(name for name in names if name.split(".")[2] in PLACES and name.count(".") in (3, 4))


def public() -> list[str]:
    """One name of each class: that of the package that hands it on."""
    return list({library_classes()[name]: name for name in reversed(admitted())}.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", public(), ids=lambda name: name.rpartition(".")[2])
def test_a_class_that_is_admitted_works_or_reports_what_it_needs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kind, short = name.split(".")[2], name.rpartition(".")[2]
    described = {"class_path": name, "init_args": ARGUMENTS.get(short, {})}
    several = kind in ("callbacks", "plugins")
    Path("given.yaml").write_text(yaml.safe_dump({"trainer": {PLACES[kind]: [described] if several else described}}))
    small = [
        "--model.backbone.width",
        "4",
        "--model.num_clusters",
        "8",
        "--trainer.max_epochs",
        "2",
        "--run.name",
        "own",
    ]
    small += ["--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]
    small += ["--trainer.enable_progress_bar", "false"]
    small += [] if kind == "accelerators" else ["--trainer.accelerator", "cpu"]
    code = run(["fit", "--config", DEMO, "--config", "given.yaml", *small])
    errors = capsys.readouterr().err
    if short in ELSEWHERE and code != 0:
        assert code in (64, 65)
        assert ELSEWHERE[short] in errors
    else:
        assert code == 0, errors
        assert (tmp_path / "runs" / "own" / "done.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} <= {"runs", "given.yaml"}
