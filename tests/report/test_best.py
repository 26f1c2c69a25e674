"""Best and last values of evaluations, and the rows of the table of probes."""

import pytest

from ssl_lightning.report.best import best_values, primary_metric, probe_columns, probe_rows, summary_values
from ssl_lightning.report.intervals import half_width

NAN = float("nan")
EVALUATIONS = [
    (0, {"eval/knn/top1": 0.9, "eval/seconds": 9.0, "eval/knn_raw_pixels/top1": 0.4}),
    (10, {"eval/knn/top1": 0.5, "eval/knn/top1/ci95": 0.3, "eval/rankme": 50.0}),
    (20, {"eval/knn/top1": NAN, "eval/x/knn/top1": 0.25}),
    (30, {"eval/knn/top1": 0.7, "eval_ema/x/knn/top1": 0.5, "eval/masked": 2.0}),
    (40, {"eval/knn/top1": 0.7}),
]


def test_the_best_value_is_the_first_largest_after_the_first_step():
    expected = {"eval/knn/top1": (30, 0.7), "eval/x/knn/top1": (20, 0.25), "eval_ema/x/knn/top1": (30, 0.5)}
    assert best_values(EVALUATIONS) == expected
    assert best_values(EVALUATIONS[:1]) == {}


def test_the_summary_has_the_last_value_of_everything_and_the_best_of_what_is_better_the_larger():
    values = summary_values(EVALUATIONS)
    assert (values["eval/seconds"], values["eval/knn_raw_pixels/top1"], values["eval/knn/top1"]) == (9.0, 0.4, 0.7)
    best = {name: value for name, value in values.items() if name.startswith("best/eval/") and "/x/" not in name}
    assert best == {"best/eval/knn/top1": 0.7, "best/eval/knn/top1/step": 30}
    assert summary_values([]) == {}


def test_the_rows_of_the_probes_are_in_the_order_of_the_probe_sets():
    rows = probe_rows(EVALUATIONS, ["main", "x"])
    assert rows == [
        ("main", "knn/top1", 0.9, 0.7, 0.3, 0.7, 30),
        ("x", "knn/top1", None, 0.25, None, 0.25, 20),
        ("x", "knn/top1 (EMA)", None, 0.5, None, 0.5, 30),
    ]
    assert all(len(row) == len(probe_columns("start")) for row in rows)
    assert probe_rows([]) == []


def test_the_rows_of_the_probes_have_intervals_over_test_images():
    ((*_, last, interval, _, _),) = probe_rows([(5, {"eval/knn/top1": 0.5, "eval/test_images": 100.0})])
    assert (last, interval) == (0.5, half_width(0.5, 100))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["eval/knn/top1", "eval/linear/top1", "eval/x/linear/top1"], "eval/linear/top1"),
        (["eval/x/linear/top1", "eval/knn/top1"], "eval/knn/top1"),
        (["eval_ema/knn/top1", "train/loss"], None),
    ],
)
def test_the_primary_metric_is_the_first_of_the_table_of_results(names, expected):
    assert primary_metric(names) == expected
