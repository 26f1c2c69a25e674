"""Sessions of a run in run.json: when, where and how its command ran and ended."""

import json
from datetime import datetime

import pytest

from ssl_lightning.errors import InterruptError, NonFiniteError
from ssl_lightning.report.run_json import sessions_of
from ssl_lightning.runs import RunDirectory
from ssl_lightning.runs.sessions import FINISHED, machine, session


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path, "a")
    directory.open()
    directory.write("run.json", {"name": "a", "inputs": {"x": 1}})
    return directory


def test_a_session_has_command_times_steps_and_machine(run):
    steps = iter([0, 12])
    with session(run, "ssl-lightning fit --config swav", lambda: next(steps)):
        (own,) = sessions_of(run.read("run.json"))
        assert "ended" not in own
    (own,) = sessions_of(run.read("run.json"))
    assert own["command"] == "ssl-lightning fit --config swav"
    assert (own["first_step"], own["last_step"], own["end"], own["exit_code"]) == (0, 12, FINISHED, 0)
    assert datetime.fromisoformat(own["started"]) <= datetime.fromisoformat(own["ended"])
    assert datetime.fromisoformat(own["started"]).tzinfo is not None
    assert own["machine"] == machine()
    assert run.read("run.json")["inputs"] == {"x": 1}


@pytest.mark.parametrize(
    ("error", "end", "code"),
    [
        (InterruptError("stopped at step 3"), "stopped at step 3", 130),
        (NonFiniteError("found a loss\nof nan"), "found a loss of nan", 70),
        (ZeroDivisionError("no\x1b[1m way"), r"ZeroDivisionError: no\x1b[1m way", None),
        (KeyboardInterrupt(), "KeyboardInterrupt:", None),
    ],
)
def test_the_reason_of_an_end_is_kept_and_the_error_goes_on(run, error, end, code):
    with pytest.raises(type(error)), session(run, "c", lambda: 3):
        raise error
    (own,) = sessions_of(run.read("run.json"))
    assert (own["end"], own["exit_code"], own["last_step"]) == (end, code, 3)


def test_sessions_are_kept_in_their_order(run):
    for number in range(3):
        with session(run, f"command {number}", lambda: number):  # noqa: B023  # called within the loop
            pass
    assert [each["command"] for each in sessions_of(run.read("run.json"))] == ["command 0", "command 1", "command 2"]


@pytest.mark.parametrize("content", [None, {}, {"sessions": 3}, {"sessions": {"a": 1}}, {"sessions": [1, "a", None]}])
def test_a_damaged_file_has_no_sessions(content):
    assert sessions_of(content) == []


def test_the_machine_names_no_host_and_no_user(run):
    import getpass
    import socket

    text = json.dumps(machine())
    assert machine()["cores"] >= 1
    assert machine()["processor"]
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
