"""`make demo`: what it must reach on the mean of three seeds, and what it leaves behind."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_lightning.report.feature_sample import FILES, read_sample

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)
NAMES = {"knn": "eval/knn/top1", "1-shot": "eval/fewshot/5way1shot", "NMI": "eval/clusters/nmi"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """The output and the folder of each seed; the seeds train side by side, each on one thread."""
    folder = tmp_path_factory.mktemp("demos")
    started = []
    for seed in SEEDS:
        command = [sys.executable, "-m", "ssl_lightning", "demo", "--run_dir", str(folder), "--seed", str(seed)]
        command += ["--name", f"demo-{seed}"]
        # files, not pipes: a pipe that nobody reads fills with progress bars, and its process waits
        with (folder / f"{seed}.out").open("w") as out, (folder / f"{seed}.err").open("w") as err:
            started.append(
                subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=out, stderr=err)
            )
    codes = [process.wait() for process in started]
    assert codes == [0] * len(SEEDS), (folder / "0.err").read_text()[-2000:]
    return {seed: ((folder / f"{seed}.out").read_text(), folder / f"demo-{seed}") for seed in SEEDS}


def evaluations(folder):
    """First and last evaluated rows of a run."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["eval/knn/top1"]]
    return [{name: float(row[column]) for name, column in NAMES.items()} for row in (rows[0], rows[-1])]


def pixels(output):
    """The table's row of pixels, as fractions."""
    (row,) = [line.split() for line in output.splitlines() if line.startswith("pixels")]
    numbers = [float(value) / 100 for value in row[1:] if not value.startswith("±")]
    return dict(zip(("linear", "knn", "knn200", "1-shot", "5-shot", "NMI"), numbers, strict=True))


def test_the_mean_of_three_seeds_is_as_good_as_promised(demos):
    trained = [evaluations(folder)[1] for _, folder in demos.values()]
    means = {name: sum(row[name] for row in trained) / len(SEEDS) for name in NAMES}
    assert means["knn"] >= 0.98, means
    assert means["1-shot"] >= 0.85, means
    assert means["NMI"] >= 0.80, means


def test_trained_beats_untrained_and_pixels(demos):
    for output, folder in demos.values():
        untrained, trained = evaluations(folder)
        floor = pixels(output)
        assert all(trained[name] > untrained[name] for name in NAMES), (folder, untrained, trained)
        assert trained["1-shot"] > floor["1-shot"]
    mean = sum(evaluations(folder)[1]["NMI"] for _, folder in demos.values()) / len(SEEDS)
    assert mean > pixels(demos[0][0])["NMI"]


def test_it_leaves_a_page_with_the_table_curves_and_every_cluster(demos):
    output, folder = demos[0]
    report = folder / "report"
    page = (report / "index.html").read_text()
    assert str(report / "index.html") in output
    for word in ("pixels", "untrained", "trained", "5-way 1-shot", "NMI", "curves.png"):
        assert word in page
    first, last = (read_sample(report / name) for name in FILES.values())
    assert first.step == 0 < last.step
    assert first.is_of_the_images_of(last)
    assert "maps.png" in {path.name for path in report.iterdir()}
    assert page.count("<svg") == 2
    images = sorted(report.glob("cluster-*.png"))
    assert len(images) > 20
    assert all(image.name in page for image in images)
