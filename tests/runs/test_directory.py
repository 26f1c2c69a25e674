"""RunDirectory: one process at a time writes into the folder of a run."""

import os
import time

import pytest

from ssl_lightning.errors import LockedRunError, UsageError
from ssl_lightning.runs import RunDirectory, directory

STALE = f"{os.uname().nodename} 999999999 1\n"
"""Left behind by a process that is gone."""


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path, "run")
    run.open()
    return run


def living():
    """What a living process writes."""
    return f"{os.uname().nodename} {os.getppid()} {directory._started(os.getppid())}\n"


def test_a_lock_is_held_within_and_gone_afterwards_and_one_left_behind_is_taken_over(run):
    lock = run.path / "LOCK"
    for left in (None, STALE):
        if left is not None:
            lock.write_text(left)
            assert not run.is_held
        with run.lock():
            assert run.is_held
            with pytest.raises(LockedRunError, match=f"held by .* {os.getpid()} "), run.lock():
                pass
            assert lock.exists()
        assert not lock.exists()
    assert [path.name for path in run.path.iterdir()] == ["checkpoints"]


@pytest.mark.parametrize("moment", ["evaluated", "cleared"])
def test_a_lock_that_another_process_takes_over_at_the_same_moment_stays_its_own(run, moment, monkeypatch):
    lock = run.path / "LOCK"
    lock.write_text(STALE)
    theirs = living()

    def taken_over(word):
        if word == STALE and lock.read_text() == STALE:
            lock.unlink()
            lock.write_text(theirs)

    def evaluate(path, word):
        held = inner_evaluate(path, word)
        if moment == "evaluated":
            taken_over(word)
        return held

    def clear(path, word):
        inner_clear(path, word)
        if moment == "cleared" and not path.exists():
            path.write_text(theirs)

    inner_evaluate, inner_clear = directory._is_held, directory._clear
    monkeypatch.setattr(directory, "_is_held", evaluate)
    monkeypatch.setattr(directory, "_clear", clear)
    with pytest.raises(LockedRunError, match="held by"), run.lock():
        pass
    assert lock.read_text() == theirs
    assert not list(run.path.glob(".LOCK*"))


def test_a_lock_that_nobody_has_written_yet_is_held_while_it_is_fresh(run):
    lock = run.path / "LOCK"
    lock.touch()
    with pytest.raises(LockedRunError), run.lock():
        pass
    assert lock.exists()
    long_ago = time.time() - 60
    os.utime(lock, (long_ago, long_ago))
    with run.lock():
        assert lock.read_text()


def test_a_lock_that_another_machine_took_over_is_not_removed(run):
    with run.lock():
        (run.path / "LOCK").write_text("elsewhere 1 1\n")
    assert (run.path / "LOCK").read_text() == "elsewhere 1 1\n"


def test_what_is_being_written_is_swept_by_the_holder_of_the_lock_alone(run):
    half = run.checkpoints / ".step-8.ckpt.tmp-1"
    half.write_bytes(b"half of it")
    (run.path / "LOCK").write_text(living())
    run.open()
    with pytest.raises(LockedRunError), run.lock():
        pass
    assert half.exists()
    (run.path / "LOCK").write_text(STALE)
    with run.lock():
        assert not half.exists()


@pytest.mark.parametrize("name", ["run\n", "a/b", "..", ".", "", "a" * 65, "run\x00", "r\u00fcn", " run", "\nrun"])
def test_a_name_that_is_none_is_one_line(tmp_path, name):
    with pytest.raises(UsageError, match=r"found --run\.name") as caught:
        RunDirectory(tmp_path, name)
    assert "\n" not in str(caught.value)


LOCKS = {
    "binary": bytes(range(256)),
    "empty": b"",
    "zeros": bytes(5000),
    "long": b"x" * 10**6,
    "huge number": f"{os.uname().nodename} {10**30} 1\n".encode(),
    "long number": f"{os.uname().nodename} {'9' * 6000} 1\n".encode(),
    "group": f"{os.uname().nodename} 0 alive\n".encode(),
    "all": f"{os.uname().nodename} -1 alive\n".encode(),
    "lines": b"a\nb\nc\nd\n",
}


@pytest.mark.parametrize("content", LOCKS)
def test_a_lock_of_other_bytes_is_held_while_it_is_fresh_at_most_and_then_taken_over(run, content):
    lock = run.path / "LOCK"
    lock.write_bytes(LOCKS[content])
    assert run.is_held == (content not in ("huge number", "group", "all"))
    long_ago = time.time() - 60
    os.utime(lock, (long_ago, long_ago))
    with run.lock():
        assert f" {os.getpid()} " in lock.read_text()


def test_a_lock_that_is_no_file_is_one_line_and_not_waited_for(run):
    lock = run.path / "LOCK"
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)):
        make(lock)
        with pytest.raises(LockedRunError, match="LOCK") as caught, run.lock():
            pass
        assert "\n" not in str(caught.value)
        lock.rmdir() if lock.is_dir() else lock.unlink()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
def test_facts_that_are_no_file_are_none(run, make):
    make(run.path / "run.json")
    assert run.read("run.json") is None
