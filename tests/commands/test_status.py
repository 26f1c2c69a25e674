"""status and compare: what the folders of runs say, without anything else."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from ssl_lightning.entry import run
from ssl_lightning.runs import RunDirectory
from ssl_lightning.runs.summary import summarize

HEAD = "step,epoch,eval/knn/top1,eval/linear/top1,eval/knn_raw_pixels/top1,train/flops\n"
ROWS = "0,0,0.30,0.40,0.36,\n10,0,,,,1e9\n20,1,0.55,0.50,,2e9\n40,2,0.50,0.60,,4e9\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    return tmp_path


def made(name: str, sessions: list[dict], rows: str = ROWS, done: bool = False, **inputs) -> Path:
    """A folder of a run."""
    path = Path("runs") / name
    (path / "checkpoints").mkdir(parents=True)
    inputs = {"model.class_path": "ssl_lightning.methods.SwAV", "seed_everything": 0} | inputs
    (path / "run.json").write_text(json.dumps({"name": name, "inputs": inputs, "sessions": sessions}))
    (path / "metrics.csv").write_text(HEAD + rows)
    if done:
        (path / "done.json").write_text("{}")
    return path


def ended(end: str = "finished", code: int = 0, minutes: int = 5) -> dict:
    machine = {"processor": "A CPU", "cores": 8, "devices": []}
    return {
        "started": "2026-01-01T10:00:00+00:00",
        "ended": f"2026-01-01T10:{minutes:02d}:00+00:00",
        "end": end,
        "exit_code": code,
        "machine": machine,
    }


def lines_of(capsys, *arguments: str) -> list[str]:
    capsys.readouterr()
    assert run(list(arguments)) == 0
    return capsys.readouterr().out.splitlines()


def test_the_states_of_runs(folder, capsys):
    made("done", [ended()], done=True)
    made("broken", [ended("found a loss of nan", 70)])
    made("stopped", [ended("stopped at step 40", 143)])
    made("killed", [{"started": "2026-01-01T10:00:00+00:00"}])
    made("old", [])
    living = made("living", [{"started": "2026-01-01T10:00:00+00:00"}])
    (Path("runs") / "evaluated").mkdir()
    (Path("runs") / "evaluated" / "metrics.csv").write_text(HEAD + "0,0,0.5,0.5,,\n")
    (Path("runs") / "no-run").mkdir()
    (Path("runs") / ".artifacts").mkdir()
    with RunDirectory("runs", living.name).lock():
        lines = lines_of(capsys, "status")
    found = {line.split()[0]: line.split()[1] for line in lines[1:8]}
    assert found == {
        "broken": "failed",
        "done": "finished",
        "evaluated": "evaluated",
        "killed": "killed",
        "living": "running",
        "old": "killed",
        "stopped": "stopped",
    }
    assert "broken: failed: found a loss of nan" in lines
    assert "stopped: stopped: stopped at step 40" in lines


def test_a_line_has_length_results_and_time(folder, capsys):
    path = made("a", [ended(minutes=5), ended(minutes=30)], done=True)
    for name in ("metrics.csv", "run.json", "done.json", "checkpoints"):
        os.utime(path / name, (time.time() - 7200,) * 2)
    heads, line = lines_of(capsys, "status", "runs")
    assert heads.split() == ["run", "state", "method", "epoch", "step", "k-NN", "20", "best", "changed", "time", "size"]
    assert line.split()[:7] == ["a", "finished", "SwAV", "2", "40", "50.0", "55.0"]
    assert "2 h ago" in line
    assert "35 min" in line


def test_stages_are_named_with_the_state_of_their_run(folder, capsys):
    base = made("base", [ended()], done=True)
    (base / "checkpoints" / "last.ckpt").write_text("")
    inputs = {
        "model.init_args.base": "runs/base/checkpoints/last.ckpt",
        "base_sha256": "0",
        "model.init_args.clusters": "runs/gone.safetensors",
        "clusters_sha256": "1",
    }
    made("student", [ended("x", 64)], **inputs)
    lines = lines_of(capsys, "status")
    assert "student: needs runs/base/checkpoints/last.ckpt of base, finished" in lines
    assert "student: needs runs/gone.safetensors, which is not there" in lines


def test_without_runs_there_is_one_line(folder, capsys):
    Path("runs").mkdir()
    assert lines_of(capsys, "status") == ["no runs in runs"]
    assert run(["status", "nowhere"]) == 65
    assert "found no folder nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"sessions": 3, "inputs": []}', '{"sessions": [{"started": 5}]}'])
def test_damaged_files_are_no_traceback(folder, text):
    path = made("a", [])
    (path / "run.json").write_text(text)
    (path / "metrics.csv").write_text("nonsense\x00")
    found = summarize(path)
    assert (found.step, found.evaluations, found.machine) == (0, [], "")


def test_runs_are_compared_side_by_side(folder, capsys):
    made("a", [ended()], done=True, **{"model.init_args.epsilon": 0.03})
    worse = "0,0,0.30,0.40,0.36,\n40,2,0.25,0.30,,3e9\n"
    made(
        "b", [ended("stopped", 130, 50)], worse, **{"model.init_args.epsilon": 0.05, "model.init_args.only_b": "x" * 90}
    )
    text = "\n".join(lines_of(capsys, "compare", "runs/a", "runs/b"))
    table = [line.split("  ") for line in text.splitlines()]
    rows = {line[0]: [cell for cell in line[1:] if cell.strip()] for line in table}
    assert [cell.strip() for cell in rows["raw pixels"]] == ["36.0"]
    assert [cell.strip() for cell in rows["a, step 0"]] == ["40.0", "30.0"]
    assert [cell.strip() for cell in rows["a, step 40"]] == ["60.0", "50.0"]
    assert [cell.strip() for cell in rows["b, step 40"]] == ["30.0", "25.0"]
    assert "60.0 at 40" in text
    assert "55.0 at 20" in text
    assert "8 cores of A CPU" in text
    assert "50 min" in text
    settings = text.partition("Settings that differ")[2].split()
    assert settings[:2] == ["a", "b"]
    assert settings[settings.index("model.init_args.epsilon") + 1 :][:2] == ["0.03", "0.05"]
    assert settings[settings.index("model.init_args.only_b") + 1] == "-"
    assert "seed_everything" not in text


def test_a_probe_set_has_lines_of_the_runs_that_were_evaluated_on_it(folder, capsys):
    made("a", [ended()], done=True)
    both = made("b", [ended()], done=True)
    head = f"{HEAD.strip()},eval/flowers/knn/top1\n"
    (both / "metrics.csv").write_text(head + "0,0,0.3,0.4,0.36,,0.2\n40,2,0.5,0.6,,4e9,0.25\n")
    lines = lines_of(capsys, "compare", "runs/a", "runs/b")
    of_flowers = lines[lines.index("Last evaluation on eval/flowers, in percent") :][:4]
    assert [line.split()[:-1] for line in of_flowers[2:]] == [["b,", "step", "0"], ["b,", "step", "40"]]
    best = lines[lines.index("Best evaluation on eval/flowers, in percent, and its step") :][:4]
    assert [line.split() for line in best[2:]] == [["b", "25.0", "at", "40"], []]


def test_accuracies_have_intervals_where_the_number_of_test_images_is_known(folder, capsys):
    path = made("a", [ended()], done=True)
    (path / "metrics.csv").write_text("step,epoch,eval/knn/top1,eval/test_images\n20,1,0.5,400\n")
    made("b", [ended()], done=True)
    text = "\n".join(lines_of(capsys, "compare", "runs/a", "runs/b"))
    assert re.search(r"a, step 20 +50.0 ±4.9", text)
    assert re.search(r"b, step 40 +60.0 +50.0\n", text)
    assert "not the spread over seeds of training" in text


def test_a_page_has_the_tables_and_the_curves(folder, capsys):
    made("a", [ended()], done=True)
    made("b", [ended()], done=True, seed_everything=1)
    lines = lines_of(capsys, "compare", "runs/a", "runs/b", "--html", "page")
    assert lines[-1] == "page: page/index.html"
    page = Path("page/index.html").read_text()
    assert "seed_everything" in page
    assert "curves.png" in page
    assert Path("page/curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_in_one_file_has_its_curves_in_itself(folder, capsys):
    made("a", [ended()], done=True)
    made("b", [ended()], done=True)
    assert lines_of(capsys, "compare", "runs/a", "runs/b", "--html", "both.html")[-1] == "page in one file: both.html"
    assert 'src="data:image/png;base64,' in Path("both.html").read_text()
    assert sorted(path.name for path in Path().iterdir()) == ["both.html", "runs"]


def test_names_that_two_folders_share_are_paths(folder, capsys):
    made("a", [ended()])
    Path("runs").rename("one")
    made("a", [ended()])
    text = "\n".join(lines_of(capsys, "compare", "one/a", "runs/a"))
    assert "one/a, step 40" in text
    assert "runs/a, step 40" in text


@pytest.mark.parametrize("given", [["runs/a"], ["runs/a", "runs/nowhere"], ["runs/a", "runs"]])
def test_what_cannot_be_compared_is_one_line(folder, capsys, given):
    made("a", [ended()])
    assert run(["compare", *given]) in (64, 65)
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected" in line
