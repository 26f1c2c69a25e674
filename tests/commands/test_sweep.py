"""sweep: trials of a file in the format of Weights & Biases as plain commands, in parts, interrupted and resumed."""

import itertools
import json
import math
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ssl_lightning.cli.config_names import config_names, configs_folder
from ssl_lightning.commands import sweep
from ssl_lightning.commands.sweep_file import read_sweep
from ssl_lightning.entry import run
from ssl_lightning.errors import InterruptError, UsageError
from ssl_lightning.runs.summary import summarize

GRID = {
    "command": ["${env}", "${interpreter}", "-m", "ssl_lightning", "fit", "--config", "demo", "${args}"],
    "method": "grid",
    "metric": {"name": "eval/knn/top1", "goal": "maximize"},
    "parameters": {
        "seed_everything": {"values": [0, 1]},
        "model.num_clusters": {"values": [10, 20, 30]},
        "trainer.max_epochs": {"value": 1},
    },
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(**changes) -> Path:
    table = {key: value for key, value in (GRID | changes).items() if value is not None}
    Path("k.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    return Path("k.yaml")


def test_a_grid_has_every_combination_once_with_a_name_of_what_varies():
    trials = read_sweep(written()).trials
    expected = set(itertools.product([0, 1], [10, 20, 30]))
    assert [(t.values["seed_everything"], t.values["model.num_clusters"]) for t in trials] == sorted(expected)
    assert trials[1].name == "num_clusters20-s0"
    assert trials[1].arguments == (
        *("--config", "demo", "--seed_everything=0", "--model.num_clusters=20", "--trainer.max_epochs=1"),
    )


@pytest.mark.parametrize("parts", [1, 4, 7])
def test_parts_are_a_partition(parts):
    trials = read_sweep(written()).trials
    found = [number for part in range(1, parts + 1) for number, _ in sweep._of_part(trials, f"{part}/{parts}")]
    assert sorted(found) == list(range(1, 7))


def test_names_are_those_of_runs_and_differ():
    values = {"model.a": {"values": ["x/y", "x y", "z" * 99, [1, 2], None, True]}, "model.b.a": {"values": [1, 2]}}
    names = [trial.name for trial in read_sweep(written(parameters=values)).trials]
    assert len(set(names)) == 12
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) for name in names), names


def test_values_reach_the_parser_as_they_are():
    values = {"a": {"value": [1, 2]}, "b": {"value": True}, "c": {"value": None}, "d": {"value": "1e-3"}}
    (trial,) = read_sweep(written(parameters=values)).trials
    options = [word.partition("=")[2] for word in trial.arguments[2:]]
    assert list(map(yaml.safe_load, options)) == [[1, 2], True, None, "1e-3"]
    assert trial.name == "trial"


DISTRIBUTIONS = {
    "uniform": ({"min": 0.0, "max": 2.0}, 1.0, (0, 2)),
    "int_uniform": ({"min": 1, "max": 3}, 2.0, (1, 3)),
    "log_uniform_values": ({"min": 0.01, "max": 100.0}, 0.0, (0.01, 100)),
    "log_uniform": ({"min": -1.0, "max": 1.0}, 0.0, (math.exp(-1), math.exp(1))),
    "normal": ({"mu": 3.0, "sigma": 0.1}, 3.0, (0, 6)),
    "q_uniform": ({"min": 0.0, "max": 10.0, "q": 2.5}, 5.0, (0, 10)),
    "categorical": ({"values": [1, 2, 3], "probabilities": [0.5, 0.5, 0.0]}, 1.5, (1, 2)),
}
"""Parameters, the mean (of logarithms for those that have them in their name), and the ends."""


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_a_random_search_samples_the_distributions_of_the_file(kind):
    described, mean, (low, high) = DISTRIBUTIONS[kind]
    path = written(method="random", parameters={"x": {"distribution": kind, **described}})
    found = [trial.values["x"] for trial in read_sweep(path, 2000).trials]
    assert all(low <= value <= high for value in found)
    assert found == [trial.values["x"] for trial in read_sweep(path, 2000).trials]
    assert found != [trial.values["x"] for trial in read_sweep(path, 2000, seed=1).trials]
    values = [math.log(value) for value in found] if kind.startswith("log") else found
    assert abs(statistics.mean(values) - mean) < 5 * statistics.stdev(values) / math.sqrt(2000)
    if kind == "q_uniform":
        assert {value % 2.5 for value in found} == {0.0}


WRONG = {
    "bayes": ({"method": "bayes"}, "found method=bayes"),
    "no command": ({"command": None}, "without a command"),
    "another program": ({"command": ["bash", "-c", "echo ${args}"]}, "expected [ssl-lightning, fit, ..., ${args}]"),
    "another subcommand": ({"command": ["ssl-lightning", "validate", "${args}"]}, "expected [ssl-lightning, fit"),
    "no options": ({"command": ["ssl-lightning", "fit"]}, "expected [ssl-lightning, fit"),
    "other macro": ({"command": ["ssl-lightning", "fit", "${args}", "${envvar:HOME}"]}, "found ${envvar:HOME}"),
    "name": ({"command": ["ssl-lightning", "fit", "--run.name=x", "${args}"]}, "found --run.name"),
    "no parameters": ({"parameters": {}}, "without parameters"),
    "nested": ({"parameters": {"model": {"parameters": {"a": {"value": 1}}}}}, "an option of fit with its full name"),
    "no values": ({"parameters": {"a": {"min": 0, "max": 1}}}, "a grid needs values"),
    "no number": ({"method": "random"}, "without a number of trials"),
    "many": ({"parameters": {name: {"values": list(range(30))} for name in "abc"}}, "found 27000 trials"),
    "ends": ({"method": "random", "run_cap": 1, "parameters": {"a": {"min": 1, "max": 0}}}, "min below max"),
    "cap": ({"method": "random", "run_cap": 0.5}, "expected a whole number"),
    "key": ({"parametrs": {}}, "found parametrs in k.yaml"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_file_that_does_not_fit_is_one_line(changes, message, capsys):
    written(**changes)
    assert run(["sweep", "k.yaml"]) in (64, 65)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert message in line


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_part_that_is_none_is_one_line(part):
    with pytest.raises(UsageError, match="expected i/n"):
        sweep._of_part([], part)


SWEEPS = sorted(name for name in config_names() if name.startswith("sweeps/"))


@pytest.mark.parametrize("name", SWEEPS)
def test_the_trials_of_a_packaged_sweep_are_commands_of_fit(name, capsys):
    assert run(["sweep", name, "--dry_run", "true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    trials = read_sweep(configs_folder() / f"{name}.yaml").trials
    assert len(lines) == len(trials) > 1
    words = shlex.split(lines[-1])
    with pytest.raises(SystemExit) as ended:
        run([*words[1:], "--print_config="])
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    for option, value in trials[-1].values.items():
        found = config
        for part in option.replace("model.", "model.init_args.").split("."):
            found = found[part] if part in found else found["init_args"][part]
        assert found == value
    assert config["run"]["name"] == trials[-1].name


def test_a_sweep_is_no_configuration_of_fit(capsys):
    assert run(["fit", "--config", SWEEPS[0]]) == 2
    assert "a sweep file; expected a configuration: ssl-lightning sweep" in capsys.readouterr().err


FAKE = """
import json, os, pathlib, signal, sys, time
options = dict(zip(sys.argv[1:], sys.argv[2:]))
folder = pathlib.Path(options["--run.dir"]) / options["--run.name"]
folder.mkdir(parents=True, exist_ok=True)
with open("started.txt", "a") as file:
    file.write(f"{options['--run.name']} {os.environ.get('OMP_NUM_THREADS')}\\n")
def stop(*_):
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
k = next(int(word.partition("=")[2]) for word in sys.argv if "num_clusters" in word)
if pathlib.Path("broken").exists() and k == 20:
    sys.exit("ssl-lightning: error: found no memory")
time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
(folder / "run.json").write_text("{}")
(folder / "metrics.csv").write_text(f"step,epoch,eval/knn/top1\\n0,0,0.1\\n9,1,{k / 100 + len(folder.name) / 1e4}\\n")
(folder / "done.json").write_text("{}")
"""


@pytest.fixture
def fake(folder, monkeypatch):
    Path("fake.py").write_text(FAKE)
    monkeypatch.setattr(sweep, "PROGRAM", (sys.executable, str(folder / "fake.py")))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def started() -> list[str]:
    return Path("started.txt").read_text().splitlines()


def test_trials_train_side_by_side_and_are_compared(fake, capsys):
    sweep.main(str(written()), jobs=2)
    shown = capsys.readouterr().out
    assert len(started()) == 6
    assert {line.split()[1] for line in started()} == {str(max(1, (os.cpu_count() or 1) // 2))}
    assert "6 of 6 trials have finished" in shown
    assert re.search(r"best eval/knn/top1: 0.30\d+, runs/k/num_clusters30-s\d", shown)
    assert "model.num_clusters=20, trainer.max_epochs=1: mean 0.2017, std 0 over 2 seeds" in shown


def test_a_trial_that_fails_does_not_stop_the_others_and_is_named(fake, capsys):
    Path("broken").touch()
    assert run(["sweep", str(written())]) == 1
    found = capsys.readouterr()
    assert len(started()) == 6
    assert "num_clusters20-s0: failed (1): ssl-lightning: error: found no memory" in found.out
    assert "2 of 6 trials failed, first num_clusters20-s0: see runs/k/.logs/num_clusters20-s0.log" in found.err
    assert "4 of 6 trials have finished" in found.out


def test_one_part_trains_its_own_trials_alone(fake, capsys):
    sweep.main(str(written()), part="2/3")
    assert [line.split()[0] for line in started()] == ["num_clusters20-s0", "num_clusters20-s1"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_running_trials_and_starts_no_other(sent, fake, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_SECONDS", "60")
    code = f"import os, time, signal; time.sleep(6); os.kill({os.getpid()}, {int(sent)})"
    other = subprocess.Popen([sys.executable, "-c", code])
    before = time.monotonic()
    with pytest.raises(InterruptError if sent == signal.SIGINT else sweep.PreemptedError, match="4 trials have not st"):
        sweep.main(str(written()), jobs=2)
    other.wait()
    assert time.monotonic() - before < 50
    assert len(started()) == 2
    assert capsys.readouterr().out.count("stopped after") == 2


@pytest.mark.slow
def test_six_trials_of_real_runs_interrupted_and_resumed_equal_the_commands_alone(folder):
    """An interruption after the second trial; then the whole sweep; one trial again as a command of its own."""
    steps = {"value": 6}
    tiny = {"model.backbone.width": {"value": 4}, "trainer.max_steps": steps, "data.num_workers": {"value": 0}}
    written(parameters=GRID["parameters"] | {"trainer.max_epochs": {"value": -1}} | tiny)
    program = [sys.executable, "-m", "ssl_lightning"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([*program, "sweep", "k.yaml"], stdout=subprocess.PIPE, text=True, env=environment)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("[3/6]"):
            break
    time.sleep(4)
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert first.returncode == 130
    again = subprocess.run([*program, "sweep", "k.yaml"], capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "6 of 6 trials have finished" in again.stdout
    printed = subprocess.run([*program, "sweep", "k.yaml", "--dry_run", "true"], capture_output=True, text=True)
    third = shlex.split(printed.stdout.splitlines()[2])
    third[third.index("--run.dir") + 1] = "alone"
    subprocess.run([*program, *third[1:]], check=True, capture_output=True, env=environment)
    name = third[third.index("--run.name") + 1]
    swept, alone = (summarize(Path(root) / name) for root in ("runs/k", "alone"))
    assert swept.state == alone.state == "finished"
    drop = ("seconds", "images_per_second")
    rows = [
        [(step, {key: value for key, value in row.items() if not key.endswith(drop)}) for step, row in one.evaluations]
        for one in (swept, alone)
    ]
    assert rows[0] == rows[1]


def test_trials_of_an_agent_have_folders_and_ids_of_their_own(monkeypatch, capsys):
    """`wandb agent` starts the same command with other options; one name for all would be one run for all."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    tiny = ["--trainer.max_steps", "1", "--model.backbone.width", "4", "--trainer.limit_val_batches", "0"]
    for trial, clusters in (("abc123", "10"), ("def456", "20")):
        monkeypatch.setenv("WANDB_RUN_ID", trial)
        assert run(["fit", "--config", "demo", *tiny, f"--model.num_clusters={clusters}"]) == 0
        facts = json.loads(Path(f"runs/demo-digits-s0-{trial}/run.json").read_text())
        assert facts["wandb_id"] == trial
