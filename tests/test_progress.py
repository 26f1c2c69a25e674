"""Progress of long loops and durations in words."""

import io
import sys
import time

import pytest

from ssl_lightning import progress as module
from ssl_lightning.progress import in_words, progress


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(module, "FIRST", 0.05)
    monkeypatch.setattr(module, "SECONDS", 0.1)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_a_long_loop_logs_plain_lines(often, caplog, capsys):
    with caplog.at_level("INFO"):
        assert list(_slow(progress(range(10), "decoding a.tar", "images"))) == list(range(10))
    assert 2 <= len(caplog.messages) <= 9
    for line in caplog.messages:
        assert line.startswith("decoding a.tar: ")
        assert " of 10 images, " in line
        assert line.endswith(" left")
        assert "\r" not in line
    assert capsys.readouterr().err == ""


def test_a_counter_without_a_length_logs_its_count_alone(often, caplog):
    with caplog.at_level("INFO"), progress(None, "unpacking a.tar", "B", is_size=True) as bar:
        for _ in range(10):
            bar.update(5000)
            time.sleep(0.03)
    assert caplog.messages
    assert all(line.endswith("k B") and "left" not in line and "of" not in line for line in caplog.messages)


def test_a_short_loop_and_a_hidden_one_log_nothing(often, caplog):
    with caplog.at_level("INFO"):
        list(progress(range(1000), "short", "images"))
        list(_slow(progress(range(8), "hidden", "images", shown=False)))
    assert caplog.messages == []


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level("INFO"):
        bar = progress(range(3), "decoding a.tar", "images")
        bar.refresh()
        list(bar)
    assert "decoding a.tar" in terminal.getvalue()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (7500.2, "2 h 5 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
        (86400 + 59, "1 d"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, words):
    assert in_words(float(seconds)) == words


def _slow(items):
    for item in items:
        time.sleep(0.03)
        yield item
