"""The experts on the page of their student, and the subset on the page of an expert."""

import json

from ssl_lightning.report.experts import experts_section, subset_of
from ssl_lightning.report.facts import run_section


def write_run(folder, inputs, images=(), rows=""):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"inputs": inputs, "images": list(images)}))
    (folder / "metrics.csv").write_text(f"step,epoch,eval/knn/top1,train/loss\n{rows}")
    return folder


def test_each_expert_has_its_cluster_images_and_results(tmp_path):
    subset = {"path": "c.safetensors", "column": "cluster", "value": 2}
    own = {f"data.init_args.subset.{name}": value for name, value in subset.items()}
    images, rows = [{"path": "./mine", "found": 1234}], "0,0,0.25,\n7,1,,3.5\n12,2,0.4361,\n"
    expert = write_run(tmp_path / "expert-2", own, images, rows)
    runs = {2: expert, 0: tmp_path / "gone", 10: write_run(tmp_path / "new", {}, [3])}
    experts = {f"model.init_args.experts.{k}": f"{path}/checkpoints/last.ckpt" for k, path in runs.items()}
    student = write_run(tmp_path / "student", experts | {"model.init_args.base": "base.ckpt"})
    section = experts_section(student)
    assert section.table[1:] == [
        ("0", "", "", "", f"{tmp_path / 'gone'} (not found)"),
        ("2", "1,234", "12", "43.6", str(expert)),
        ("10", "", "0", "", str(tmp_path / "new")),
    ]
    assert subset_of(expert) == "cluster 2 of c.safetensors"
    assert dict(run_section(expert).table[1:])["subset"] == "cluster 2 of c.safetensors"
    assert subset_of(student) == ""
    assert "subset" not in dict(run_section(student).table[1:])


def test_runs_without_experts_and_damaged_facts_have_no_section(tmp_path):
    assert experts_section(write_run(tmp_path / "plain", {"model.init_args.k": 3})) is None
    assert experts_section(tmp_path / "gone") is None
    for number, inputs in enumerate([[1, 2], "text", None]):
        assert experts_section(write_run(tmp_path / str(number), inputs)) is None
        assert subset_of(tmp_path / str(number)) == ""


def test_a_subset_file_without_a_value_has_its_rows(tmp_path):
    inputs = {"data.init_args.subset.path": "kept.parquet", "data.init_args.subset.column": "cluster"}
    assert subset_of(write_run(tmp_path / "run", inputs)) == "images of kept.parquet"
