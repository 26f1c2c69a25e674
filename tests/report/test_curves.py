"""Curves show the numbers that exist, and no empty panels."""

import subprocess
import sys

import pytest
from matplotlib.figure import Figure
from PIL import Image

from ssl_lightning.report import draw_curves
from ssl_lightning.report.curves import CLUSTER_PANELS


@pytest.fixture
def plotted(monkeypatch):
    """The panels of the figure that was saved: title to (axis, points by curve)."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **rest: (figures.append(self), save(self, *args, **rest))
    )

    def panels():
        (figure,) = figures
        return {
            axes.get_title(): (
                axes.get_xlabel(),
                {line.get_label(): [tuple(point) for point in line.get_xydata().tolist()] for line in axes.lines},
            )
            for axes in figure.axes
        }

    return panels


ROWS = [
    {"step": "0", "epoch": "0", "eval/knn/top1": "0.25", "cluster/nmi_labels": "0.5", "train/loss": ""},
    {"step": "10", "epoch": "0", "eval/knn/top1": "", "cluster/nmi_labels": "", "train/loss": "3.0"},
    {"step": "20", "epoch": "0", "eval/knn/top1": "", "cluster/nmi_labels": "", "train/loss": "2.5"},
    {"step": "22", "epoch": "1", "eval/knn/top1": "0.75", "cluster/nmi_labels": "0.0", "train/loss": "2.0"},
]


def test_only_panels_and_curves_with_numbers_are_plotted(plotted, tmp_path):
    assert draw_curves([{"step": "4", "epoch": "1", "eval/knn/top1": "0.5", "train/lr": "0.1"}], tmp_path / "a.png")
    assert plotted() == {"Evaluated": ("epoch", {"eval/knn/top1": [(1, 0.5)]})}


def test_a_single_evaluation_is_plotted_over_a_whole_number(tmp_path, monkeypatch):
    limits = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: limits.extend(axes.get_xlim() for axes in self.axes))
    assert draw_curves([{"step": "0", "epoch": "0", "eval/knn/top1": "0.5"}], tmp_path / "a.png")
    assert limits == [(-1, 1)]


def test_numbers_several_times_an_epoch_are_plotted_over_the_steps(plotted, tmp_path):
    assert draw_curves(ROWS, tmp_path / "a.png")
    assert plotted() == {
        "Clusters": ("epoch", {"cluster/nmi_labels": [(0, 0.5), (1, 0.0)]}),
        "Evaluated": ("epoch", {"eval/knn/top1": [(0, 0.25), (1, 0.75)]}),
        "Loss": ("step", {"train/loss": [(10, 3.0), (20, 2.5), (22, 2.0)]}),
    }


def test_numbers_and_their_text_plot_the_same_zeros_too(plotted, tmp_path):
    rows = [{"step": 0, "epoch": 0, "eval/knn/top1": 0.0}, {"step": 5, "epoch": 1, "eval/knn/top1": 0.5}]
    assert draw_curves(rows, tmp_path / "a.png")
    assert plotted() == {"Evaluated": ("epoch", {"eval/knn/top1": [(0, 0.0), (1, 0.5)]})}


def test_what_is_not_a_number_has_no_curve(plotted, tmp_path):
    rows = [{"step": "1", "epoch": "1", "cluster/reassigned": "nan", "cluster/nmi_labels": "0.5", "train/loss": "inf"}]
    assert draw_curves(rows, tmp_path / "a.png")
    assert plotted() == {"Clusters": ("epoch", {"cluster/nmi_labels": [(1, 0.5)]})}


def test_an_image_is_written_where_it_was_requested(tmp_path):
    assert draw_curves(ROWS, tmp_path / "new" / "curves.png")
    with Image.open(tmp_path / "new" / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width > 3 * image.height  # three panels side by side


def test_more_panels_than_fit_in_a_line_begin_another(plotted, tmp_path):
    names = [name for _, columns in CLUSTER_PANELS for name in columns]
    rows = [{"step": "0", "epoch": "0"} | dict.fromkeys(names, "0.0"), {"step": "9", "epoch": "1", names[0]: "0.5"}]
    assert draw_curves(rows, tmp_path / "a.png", CLUSTER_PANELS)
    found = plotted()
    assert list(found) == [title for title, _ in CLUSTER_PANELS]
    assert found["Agreement with the classes"][1]["cluster/nmi_labels"] == [(0, 0.0), (1, 0.5)]
    with Image.open(tmp_path / "a.png") as image:
        assert 1.1 * image.height < image.width < 1.5 * image.height  # three by three


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": "1", "epoch": "1", "train/lr": "0.1"}],
        [{"step": "1", "epoch": "1", "train/loss": ""}],
        [{"step": "1", "epoch": "1", "train/loss": "nan"}],
        [{"step": "1", "train/loss": "2.0"}],
    ],
)
def test_without_anything_to_draw_nothing_is_written(rows, tmp_path):
    assert draw_curves(rows, tmp_path / "a.png") is False
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_the_users_matplotlib_alone(tmp_path):
    code = f"""
import sys, matplotlib
matplotlib.use("svg")
from pathlib import Path
from ssl_lightning.report import draw_curves
assert draw_curves([{{"step": "1", "epoch": "1", "train/loss": "2.0"}}], Path({str(tmp_path / "a.png")!r}))
print(matplotlib.get_backend(), "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["svg", "False"]
