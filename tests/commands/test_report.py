"""The page of a run: its maps, its settings, its times; written again from files, and as one file."""

import json
import re
import shutil
import sys

import pytest

from ssl_lightning.clustering import Clustering
from ssl_lightning.entry import run
from ssl_lightning.report.feature_sample import FILES, read_sample

SMALL = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "12", "--model.num_clusters", "10"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a short run of the demo's configuration."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ssl-lightning"])
        assert run(["fit", "--config", "demo", "--run.name", "a", *SMALL]) == 0
    return folder / "runs" / "a"


@pytest.fixture
def copied(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    shutil.copytree(trained, tmp_path / "runs" / "a", symlinks=True)
    return tmp_path / "runs" / "a"


def headings(page):
    return re.findall(r"<(?:h2|summary)>(.*?)</(?:h2|summary)>", page.read_text())


def test_the_page_has_both_maps_neighbors_settings_and_times(trained):
    page = (trained / "report" / "index.html").read_text()
    found = headings(trained / "report" / "index.html")
    for name in ("Nearest neighbors", "Settings that differ from the recipe", "Time", "Next commands", "All settings"):
        assert name in found
    assert "Map of the features of 359 test images of digits" in found
    assert page.count("<svg") == 2
    assert re.search(r"<td>trainer.max_epochs</td><td>36</td><td[^>]*>1</td>", page)
    for phase in ("loading", "steps", "clustering", "evaluation", "the rest"):
        assert f"<tr><td>{phase}</td>" in page
    assert re.search(r"untrained +\d+\.\d ±\d", page)


def test_the_samples_are_of_both_ends_of_the_run(trained):
    first, last = (read_sample(trained / "report" / name) for name in FILES.values())
    assert (first.step, last.step) == (0, 12)
    assert first.is_of_the_images_of(last)
    assert not first.features.equal(last.features)


def test_a_finished_run_in_one_file(copied, capsys):
    before = (copied / "report" / "index.html").read_bytes()
    assert run(["report", "runs/a", "--out", "a.html"]) == 0
    assert "page in one file: a.html" in capsys.readouterr().out
    text = (copied.parents[1] / "a.html").read_text()
    assert set(re.findall(r'<img [^>]*?src="(\w+:)', text)) == {"data:"}
    assert 'src="cluster' not in text
    assert (copied / "report" / "index.html").read_bytes() == before


def test_a_run_that_trains_has_a_page_of_its_files(copied, capsys):
    (copied / "done.json").unlink()
    shutil.rmtree(copied / "checkpoints")
    for path in copied.glob("report/*.png"):
        path.unlink()
    (copied / "report" / "index.html").unlink()
    assert run(["report", "runs/a"]) == 0
    assert "page: runs/a/report/index.html" in capsys.readouterr().out
    page = (copied / "report" / "index.html").read_text()
    assert page.count("<svg") == 2
    assert "eval on digits" in page
    assert "curves.png" in page


def test_a_run_that_trains_has_its_saved_clusters_on_its_page(copied, caplog):
    (copied / "done.json").unlink()
    finished = headings(copied / "report" / "index.html")
    shutil.rmtree(copied / "report")
    assert run(["report", "runs/a", "--images", "false"]) == 0
    assert not [title for title in headings(copied / "report" / "index.html") if "lusters, largest" in title]
    assert run(["report", "runs/a"]) == 0
    written = headings(copied / "report" / "index.html")
    assert {"Clusters, largest first", "Sizes of the last clusters"} <= set(finished) & set(written)
    assert (copied / "report" / "cluster-0.png").is_file()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_the_page_of_a_run_has_no_clusters_once_its_images_have_changed(copied, caplog):
    (copied / "done.json").unlink()
    (newest,) = sorted(copied.glob("clusters/*.safetensors"))
    clustering, metadata = Clustering.load(newest)
    clustering.save(newest, metadata | {"data": "of other images"})
    assert run(["report", "runs/a"]) == 0
    assert "the page is without clusters: found no images of runs/a (they have changed since)" in caplog.text
    assert "Clusters, largest first" not in headings(copied / "report" / "index.html")


def test_a_run_without_an_evaluation_has_a_page(copied):
    shutil.rmtree(copied / "report")
    (copied / "done.json").unlink()
    (copied / "metrics.csv").unlink()
    assert run(["report", "runs/a"]) == 0
    assert "All settings" in headings(copied / "report" / "index.html")


@pytest.mark.parametrize("given", [["nowhere"], ["runs"], ["runs/a", "--out", "runs"]])
def test_what_has_no_page_is_one_line(copied, capsys, given):
    assert run(["report", *given]) in (64, 65)
    (line,) = capsys.readouterr().err.splitlines()
    assert "found" in line


def test_facts_of_other_people_are_text(copied):
    facts = json.loads((copied / "run.json").read_text())
    facts["recipe"] = {"of": ["<script>alert(1)</script>"], "changed": [["<b>", "</td>", "<script>"]]}
    (copied / "run.json").write_text(json.dumps(facts))
    (copied / "done.json").unlink()
    assert run(["report", "runs/a"]) == 0
    page = (copied / "report" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "<td>&lt;b&gt;</td>" in page
