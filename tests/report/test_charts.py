"""Charts are SVG of the numbers, with the median, names as text, and nothing where there is nothing to show."""

import re

import numpy as np
import pytest

from ssl_lightning.report.charts import BINS, bars, histogram, size_curve


def test_a_histogram_counts_every_value_once_and_names_its_range():
    values = np.geomspace(1, 1000, 501)
    text = histogram(values, "bytes", "kB")
    counts = [int(found.replace(",", "")) for found in re.findall(r"<title>[^<]* to [^<]*: ([\d,]+)</title>", text)]
    assert len(counts) == BINS
    assert sum(counts) == 501
    assert "bytes: median 31.6, 1 to 1,000" in text
    assert histogram(np.full(5, 7), "side", "pixels").count("side: 7 in all") == 2


def test_values_of_zero_are_left_out_and_without_others_there_is_no_chart():
    assert "4 in all" in histogram(np.array([0, 0, 4, 4, 4]), "a", "b")
    assert histogram(np.zeros(3), "a", "b") == ""
    assert bars([], "a") == ""
    assert size_curve([0, 0], "a", "b") == ""


def test_bars_hold_the_rest_in_the_last_one_and_escape_names():
    text = bars([("<b>", 5), *((str(number), 1) for number in range(9))], "kinds", most=3)
    assert "&lt;b&gt;" in text
    assert text.count("<tr>") == 3
    assert "8 others" in text
    assert "57.1 %" in text
    assert "&lt; 0.1 %" in bars([("a", 10_000), ("b", 1)], "kinds")


@pytest.mark.parametrize("sizes", [[1], [5, 5], [1000, 30, 2, 1], list(range(1, 500))])
def test_a_curve_of_sizes_stays_within_its_axes(sizes):
    text = size_curve(sizes, "sizes", "rank")
    (points,) = re.findall(r'points="([^"]*)"', text)
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(places) == len(sizes)
    assert all(46 <= x <= 350 and 9.9 <= y <= 156.1 for x, y in places)
    assert [y for _, y in places] == sorted(y for _, y in places)
