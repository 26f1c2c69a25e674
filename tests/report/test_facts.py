"""Facts on the page of a run, from its folder alone."""

import json

import pytest

from ssl_lightning.report.facts import (
    next_section,
    reading,
    recipe_section,
    run_section,
    settings_section,
    time_section,
    verdict_section,
)
from ssl_lightning.report.verdict import failing, not_better

MACHINE = {"processor": "A CPU", "cores": 8, "devices": [], "torch": "2.11", "python": "3.12", "ssl_lightning": "0.1"}
SESSIONS = [
    {"command": "first", "started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T10:01:40+00:00"},
    {
        "command": "ssl-lightning fit --config swav",
        "started": "2026-01-02T10:00:00+00:00",
        "ended": "2026-01-02T10:05:00+00:00",
        "machine": MACHINE,
    },
]
TABLE = """
step,epoch,eval/knn/top1,eval/seconds,cluster/seconds,doctor/rank_one,doctor/one_cluster,eval/knn_raw_pixels/top1
0,0,0.4,50,20,,,0.45
10,1,,,20,1,0,
20,2,0.42,50,,1,0,
""".lstrip()


@pytest.fixture
def run(tmp_path):
    inputs = {"model.class_path": "ssl_lightning.methods.SwAV", "seed_everything": 3}
    images = [{"path": "./mine", "found": 1234}, {"path": "x"}, 3]
    (tmp_path / "run.json").write_text(json.dumps({"inputs": inputs, "sessions": SESSIONS, "images": images}))
    (tmp_path / "metrics.csv").write_text(TABLE)
    (tmp_path / "config.yaml").write_text("seed_everything: 3\n")
    return tmp_path


def test_the_run_has_its_command_length_and_machine(run):
    facts = dict(run_section(run).table[1:])
    assert facts == {
        "command": "ssl-lightning fit --config swav",
        "method": "SwAV",
        "images": "1,234 in ./mine",
        "seed": "3",
        "length": "2 epochs, 20 steps",
        "started": "2026-01-01T10:00:00+00:00",
        "sessions": "2",
        "machine": "8 cores of A CPU",
        "versions": "ssl_lightning 0.1, torch 2.11, python 3.12",
        "checkpoint": str(run / "checkpoints" / "last.ckpt"),
    }


def test_the_length_is_that_of_the_last_checkpoint_where_the_metrics_end_before(run):
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").symlink_to("step-24.ckpt")
    assert dict(run_section(run).table[1:])["length"] == "2 epochs, 24 steps"
    (run / "metrics.csv").write_text("step,epoch,train/flops\n1,0,5\n")
    assert dict(run_section(run).table[1:])["length"] == "24 steps"


def test_the_time_is_that_of_all_sessions_by_phase(run):
    assert time_section(run).table[1:] == [
        ("clustering", "40", "10%"),
        ("evaluation", "100", "25%"),
        ("training and the rest", "260", "65%"),
        ("all", "400", "100%"),
    ]


def test_the_time_of_training_is_that_of_loading_and_of_the_steps(run):
    rows = "10,1,,,20,1,0,,120,30\n20,2,0.42,50,,1,0,,100,10\n"
    head, first = TABLE.splitlines()[:2]
    (run / "metrics.csv").write_text(f"{head},train/seconds,train/loading_seconds\n{first},,\n{rows}")
    assert time_section(run).table[1:] == [
        ("loading", "40", "10%"),
        ("steps", "180", "45%"),
        ("clustering", "40", "10%"),
        ("evaluation", "100", "25%"),
        ("the rest", "40", "10%"),
        ("all", "400", "100%"),
    ]


def test_a_graphics_card_is_named_first(run):
    facts = json.loads((run / "run.json").read_text())
    facts["sessions"][-1]["machine"]["devices"] = ["A Card", "A Card"]
    (run / "run.json").write_text(json.dumps(facts))
    assert dict(run_section(run).table[1:])["machine"] == "2 x A Card, 8 cores of A CPU"


def test_the_assessment_has_warnings_and_lasting_failures(run):
    assert failing(run) == ["rank_one"]
    assert not_better(run) == ["k-NN 20 of the trained network, 42.0, is below that of raw pixels, 45.0"]
    assert [line for (line,) in verdict_section(run).table[1:]] == [
        "Warning: k-NN 20 of the trained network, 42.0, is below that of raw pixels, 45.0.",
        "Training diagnostics: rank_one.",
    ]


def test_the_paragraph_explains_the_columns_that_there_are():
    assert "vote" in reading("k-NN 20  linear")
    assert "interval" not in reading("k-NN 20  linear")
    assert "not the spread over seeds" in reading("k-NN 20  50.0 ±1.2")
    assert reading("nothing was evaluated") == ""


def test_commands_and_settings_are_those_of_the_run(run):
    assert f"--ckpt_path {run / 'checkpoints' / 'last.ckpt'}" in next_section(run).text
    assert settings_section(run).text == "seed_everything: 3\n"
    assert settings_section(run).is_folded


def test_settings_that_differ_from_the_recipe_have_both_values(run):
    assert recipe_section(run) is None  # of a run of an earlier version
    facts = json.loads((run / "run.json").read_text())
    facts["recipe"] = {"of": ["swav", "scale/cpu"], "changed": [["model.a", None, "x" * 200], ["trainer.b", 1, [2]]]}
    (run / "run.json").write_text(json.dumps(facts))
    section = recipe_section(run)
    assert "otherwise than swav and scale/cpu" in section.note
    assert section.table[1:] == [("model.a", "(none)", "x" * 117 + "..."), ("trainer.b", "1", "[2]")]
    facts["recipe"]["changed"] = []
    (run / "run.json").write_text(json.dumps(facts))
    assert (recipe_section(run).text, list(recipe_section(run).table)) == ("none", [])


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", '{"sessions": 4}', '{"sessions": [{"started": 3, "machine": 4}]}', '{"recipe": {"of": 3}}'],
)
def test_damaged_facts_are_no_error(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    facts = dict(run_section(tmp_path).table[1:])
    assert set(facts) <= {"checkpoint", "started"}
    assert time_section(tmp_path) is None
    assert recipe_section(tmp_path) is None
    assert settings_section(tmp_path) is None
    assert failing(tmp_path) == []
