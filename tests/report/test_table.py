"""The table that a command ends with, against tables written out by hand."""

import pytest

from ssl_lightning.report import percent_table, results_table
from ssl_lightning.report.table import evaluations, probe_set_prefixes


def write(path, *rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)] + [",".join(str(row.get(name, "")) for name in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def cells(line):
    return line.replace(" ±", "±").split()


def test_a_table_is_percent_with_its_interval_and_blank_where_nothing_was_evaluated():
    table = percent_table(
        {
            "pixels": {"linear/top1": 0.9567, "fewshot/5way1shot": 0.6507, "fewshot/5way1shot/ci95": 0.0082},
            "untrained": {"knn/top1": 1.0, "linear/top1": 0.05, "fewshot/5way1shot": 0.5},
        },
        title="percent",
    )
    assert table.split("\n") == [
        "percent          linear       k-NN 20  5-way 1-shot",
        "pixels             95.7                   65.1 ±0.8",
        "untrained           5.0         100.0          50.0",
    ]


def test_columns_that_no_row_has_are_left_out_and_unknown_metrics_too():
    lines = percent_table({"a": {"clusters/nmi": 0.5, "rankme": 15.6, "seconds": 2.0}}).split("\n")
    assert [line.split() for line in lines] == [["NMI"], ["a", "50.0"]]


def test_a_longer_title_or_row_keeps_the_columns_in_line():
    for title, name in (("a long title", "b"), ("b", "a long title")):
        head, row = percent_table({name: {"linear/top1": 0.5}}, title=title).split("\n")
        assert len(head) == len(row) == len("a long title") + 2 + 12


def test_nothing_finite_to_say_is_said():
    assert cells(percent_table({"a": {"knn/top1": float("nan")}}).split("\n")[1]) == ["a", "nan"]


def test_the_results_are_the_untrained_and_the_last_numbers(tmp_path):
    path = write(
        tmp_path / "metrics.csv",
        {"step": 0, "epoch": 0, "eval/linear/top1": 0.1, "eval/knn/top1": 0.2},
        {"step": 5, "epoch": 1, "train/loss": 3.0},
        {"step": 10, "epoch": 2, "eval/linear/top1": 0.3, "eval/knn/top1": 0.4},
        {"step": 20, "epoch": 4, "eval/linear/top1": 0.5, "eval/knn/top1": 0.6},
        {"step": 21, "epoch": 4, "train/loss": 2.0},
    )
    assert [cells(line) for line in results_table(path).split("\n")] == [
        ["eval", "linear", "k-NN", "20"],
        ["untrained", "10.0", "20.0"],
        ["step", "20", "50.0", "60.0"],
    ]


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ('{"initial_weights": {"path": "runs/a/checkpoints/last.ckpt", "inputs": {}}}', "start"),
        ('{"initial_weights": {"path": null, "inputs": {}}}', "untrained"),
        ('{"initial_weights": {"path": null}, "inputs": {"warm_start_sha256": "5e"}}', "start"),
        ('{"initial_weights": {"path": null}, "inputs": {"clusters_sha256": "5e"}}', "untrained"),
        ("{}", "untrained"),  # a run of an earlier version
        ('{"initial_weights": {"pa', "untrained"),
        ("[]", "untrained"),
    ],
)
def test_the_numbers_of_a_start_that_had_learned_are_not_called_untrained(tmp_path, facts, name):
    (tmp_path / "run.json").write_text(facts)
    path = write(tmp_path / "metrics.csv", *({"step": step, "epoch": 0, "eval/knn/top1": 0.5} for step in (0, 5)))
    first = results_table(path).split("\n")[1]
    assert cells(first) == [name, "50.0"]
    assert cells(results_table(path, start="DeepCluster").split("\n")[1]) == ["DeepCluster", "50.0"]


def test_each_probe_set_has_its_table_the_primary_one_first(tmp_path):
    first = {
        "eval/knn/top1": 0.1,
        "eval/svhn/knn/top1": 0.2,
        "eval/svhn/fewshot/5way1shot": 0.25,
        "eval/a/linear/top1": 0.3,
    }
    last = {
        "eval/knn/top1": 0.4,
        "eval/svhn/knn/top1": 0.5,
        "eval/svhn/fewshot/5way1shot": 0.55,
        "eval/a/linear/top1": 0.6,
    }
    path = write(tmp_path / "metrics.csv", {"step": 0, "epoch": 0} | first, {"step": 9, "epoch": 1} | last)
    assert [cells(line) for line in results_table(path).split("\n")] == [
        ["eval", "k-NN", "20"],
        ["untrained", "10.0"],
        ["step", "9", "40.0"],
        ["eval/a", "linear"],
        ["untrained", "30.0"],
        ["step", "9", "60.0"],
        ["eval/svhn", "k-NN", "20", "5-way", "1-shot"],
        ["untrained", "20.0", "25.0"],
        ["step", "9", "50.0", "55.0"],
    ]


def test_the_heading_names_the_probe_set_of_the_numbers(tmp_path):
    numbers = {f"{prefix}/knn/top1": 0.1 for prefix in ("eval", "eval_ema", "eval/svhn", "eval/old")}
    path = write(tmp_path / "metrics.csv", {"step": 0, "epoch": 0} | numbers)
    lines = results_table(path, probe_sets=["cifar10", "svhn"]).split("\n")
    assert [line.split("  ")[0] for line in lines[::2]] == [
        "eval on cifar10",
        "eval_ema on cifar10",
        "eval/old",
        "eval on svhn",
    ]


def test_the_interval_of_a_probe_set_is_not_a_probe_set():
    numbers = {
        "eval/fewshot/5way1shot": 0.1,
        "eval/fewshot/5way1shot/ci95": 0.01,
        "eval/b/knn/top1": 0.1,
        "eval/rankme": 3,
    }
    assert probe_set_prefixes(numbers) == ["eval", "eval/b"]


def test_a_run_that_was_evaluated_once_has_one_line(tmp_path):
    path = write(tmp_path / "metrics.csv", {"step": 30, "epoch": 3, "eval/clusters/nmi": 0.123})
    assert [cells(line) for line in results_table(path).split("\n")] == [["eval", "NMI"], ["step", "30", "12.3"]]


def test_evaluated_in_other_numbers_only_reports_so(tmp_path):
    path = write(tmp_path / "metrics.csv", {"step": 30, "epoch": 3, "eval/rankme": 3.5})
    assert "none of the metrics" in results_table(path)


@pytest.mark.parametrize("rows", [[], [{"step": 1, "epoch": 0, "train/loss": 2.0}]])
def test_a_run_that_was_not_evaluated_reports_so(tmp_path, rows):
    path = write(tmp_path / "metrics.csv", *rows) if rows else tmp_path / "missing.csv"
    assert evaluations(path) == []
    assert results_table(path).startswith("nothing was evaluated")
    assert "data.probe_sets" in results_table(path)


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    rows = [{"step": n, "epoch": n, "eval/knn/top1": 0.875, "eval/linear/top1": 0.5} for n in (0, 1)]
    path = write(tmp_path / "metrics.csv", *rows)
    path.write_text(path.read_text().removesuffix("75,0.5\n"))
    assert evaluations(path) == [(0, {"eval/knn/top1": 0.875, "eval/linear/top1": 0.5})]


def test_intervals_over_test_images_are_in_the_table_where_they_are_requested(tmp_path):
    path = write(
        tmp_path / "metrics.csv",
        {"step": 0, "epoch": 0, "eval/knn/top1": 0.2, "eval/knn_raw_pixels/top1": 1.0, "eval/test_images": 100},
        {"step": 20, "epoch": 4, "eval/knn/top1": 0.5, "eval/lowshot/1pct": 0.5, "eval/test_images": 400},
    )
    assert [cells(line) for line in results_table(path, intervals=True).split("\n")] == [
        ["eval", "k-NN", "20", "1", "%", "labels"],
        ["raw", "pixels", "100.0±3.7"],
        ["untrained", "20.0±8.9"],
        ["step", "20", "50.0±4.9", "50.0±4.9"],
    ]
    assert "±" not in results_table(path)
