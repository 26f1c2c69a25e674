"""Intervals are those of Wilson, of shares of test images alone."""

import pytest
from scipy.stats import binomtest

from ssl_lightning.report.intervals import half_width, with_intervals


@pytest.mark.parametrize("images", [1, 7, 359, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_half_width_is_the_wider_side_of_the_interval_of_scipy(share, images):
    right = round(share * images)
    interval = binomtest(right, images).proportion_ci(0.95, method="wilson")
    share = right / images
    assert half_width(share, images) == pytest.approx(max(share - interval.low, interval.high - share), rel=1e-5)


def test_shares_of_test_images_have_intervals_and_other_metrics_have_none():
    numbers = {
        "eval/knn/top1": 0.5,
        "eval/knn_raw_pixels/top1": 0.5,
        "eval/linear/top5": 0.9,
        "eval/lowshot/1pct": 0.2,
        "eval/lowshot/1pct/share": 0.01,
        "eval/fewshot/5way1shot": 0.6,
        "eval/fewshot/5way1shot/ci95": 0.01,
        "eval/clusters/nmi": 0.5,
        "eval/rankme": 12.0,
        "eval/test_images": 100.0,
        "eval/x/knn/top1": 0.5,
        "eval/x/test_images": 400.0,
        "eval/y/knn/top1": 0.5,
        "eval/x/linear/top1": float("nan"),
    }
    found = {name: value for name, value in with_intervals(numbers).items() if name not in numbers}
    assert found == {
        "eval/knn/top1/ci95": half_width(0.5, 100),
        "eval/knn_raw_pixels/top1/ci95": half_width(0.5, 100),
        "eval/linear/top5/ci95": half_width(0.9, 100),
        "eval/lowshot/1pct/ci95": half_width(0.2, 100),
        "eval/x/knn/top1/ci95": half_width(0.5, 400),
    }


def test_no_images_have_no_interval():
    assert "eval/knn/top1/ci95" not in with_intervals({"eval/knn/top1": 0.5, "eval/test_images": 0.0})
