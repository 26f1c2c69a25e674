"""Signals: the first one requests a checkpoint and sets the exit code; one soon after is the same request."""

import os
import signal
import time

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_lightning.entry import run
from ssl_lightning.errors import InterruptError, RequeueError
from ssl_lightning.runs import Preemption, preemption

from .conftest import differences

TERM, USR1, USR2, INT = signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved, and no process that ends in the middle of the tests."""
    state = {"now": 100.0}
    monkeypatch.setattr(preemption.time, "monotonic", lambda: state["now"])
    monkeypatch.setattr(preemption._thread, "start_new_thread", lambda *_: 0)
    before = signal.signal(INT, signal.default_int_handler)
    yield state
    signal.signal(INT, before)


def send(number):
    os.kill(os.getpid(), number)


def send_later(watcher, clock, *signals):
    """Signals within the watch, each with the time after the first one."""
    with watcher.watched():
        for after, number in signals:
            clock["now"] = 100.0 + after
            send(number)


@pytest.mark.parametrize("first", [TERM, USR1, USR2, INT])
@pytest.mark.parametrize("second", [TERM, USR1, USR2, INT])
def test_a_second_signal_is_the_same_request_for_a_while_and_then_ends_the_process(first, second, clock):
    expected = {TERM: 143, USR1: 85, USR2: 85, INT: 130}
    while_the_same = 0.49 if second == INT else 4.9
    watcher = Preemption()
    send_later(watcher, clock, (0, first), *((after, second) for after in (0.0, 0.005, while_the_same)))
    assert watcher.signal_code == expected[first]
    watcher = Preemption()
    with pytest.raises(SystemExit) as caught:
        send_later(watcher, clock, (0, first), (while_the_same + 0.2, second))
    assert caught.value.code == 128 + second


def test_whatever_a_library_makes_of_leaving_at_once_the_code_stays(clock):
    def write():
        try:
            send(INT)
        except SystemExit as error:
            raise RuntimeError("the archive is broken") from error

    def work():
        with Preemption().watched():
            send(INT)
            clock["now"] += 1
            write()

    with pytest.raises(SystemExit) as caught:
        work()
    assert caught.value.code == 130


def test_lightnings_own_exception_ends_with_the_code_of_the_first_signal(clock):
    def work(number):
        with Preemption().watched():
            send(number)
            raise SIGTERMException

    for number, reason in ((USR1, RequeueError), (INT, InterruptError)):
        with pytest.raises(reason, match="to resume: ssl-lightning"):
            work(number)


def test_handlers_are_given_back_and_an_ignored_sigint_stays_ignored(clock):
    signal.signal(INT, signal.SIG_IGN)
    before = {number: signal.getsignal(number) for number in (TERM, USR1, USR2, INT)}
    watcher = Preemption()
    with watcher.watched():
        assert signal.getsignal(TERM) != before[TERM]
        send(INT)
        assert watcher.signal_code == 0
    assert {number: signal.getsignal(number) for number in before} == before


def test_ctrl_c_outside_of_the_loops_is_one_line_and_130(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("ssl_lightning.entry.dispatch", interrupted)
    assert run(["choose-k", "x"]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "Ctrl-C" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "after", "code"),
    [
        ("term+term", 0.005, 143),
        ("term+term", 0.02, 143),
        ("term+term", 0.1, 143),
        ("usr1+term", 0.05, 85),
        ("int", 0, 130),
        ("int+int", 0.1, 130),
    ],
)
def test_a_signal_or_two_in_a_row_leave_one_checkpoint_and_the_command_that_resumes(
    runs, whole, signals, after, code, monkeypatch
):
    name = f"twice-{signals.replace('+', '-')}-{after}"
    monkeypatch.setenv("FAULTY_AFTER", str(after))
    monkeypatch.setenv("FAULTY_SLOW", "0.3")
    stopped = runs.fit(name, f"{signals}@step=7")
    assert stopped.returncode == code, stopped.stderr
    (line,) = [line for line in stopped.stderr.splitlines() if "stopped at step 7" in line]
    assert "to resume: ssl-lightning fit --config" in line
    assert "Traceback" not in stopped.stderr
    assert not (runs.folder / name / "LOCK").exists()
    assert runs.checkpoint(name)["global_step"] == 7
    if after == 0.02 or signals == "int":
        monkeypatch.delenv("FAULTY_SLOW")
        assert runs.fit(name).returncode == 0
        assert not differences(runs.checkpoint(name), runs.checkpoint(whole))


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once_and_the_write_under_way_is_discarded(runs, monkeypatch):
    monkeypatch.setenv("FAULTY_AFTER", "1.5")
    monkeypatch.setenv("FAULTY_SLOW", "4")
    begin = time.monotonic()
    stopped = runs.fit("impatient", "int+int@step=7", extra=("--run.save_every_n_steps", "100"))
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert time.monotonic() - begin < 60
    assert not list((runs.folder / "impatient" / "checkpoints").glob("*.ckpt"))
    assert not (runs.folder / "impatient" / "LOCK").exists()
