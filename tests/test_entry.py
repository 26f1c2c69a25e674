"""The entry point: how threads wait, and which process of a distributed run prints what all of them log."""

import logging
import os
import subprocess
import sys

import pytest
from lightning_utilities.core.rank_zero import rank_zero_only

from ssl_lightning.entry import _is_shown, run

PRINTS = (
    "import os, sys; sys.argv = ['ssl-lightning', '--version']; from ssl_lightning.entry import main; main(); "
    "print([os.environ.get(name) for name in ('OMP_WAIT_POLICY', 'KMP_BLOCKTIME', 'GOMP_SPINCOUNT')])"
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["PASSIVE", "0", "1000"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None, None]),
        ({"GOMP_SPINCOUNT": "300"}, [None, None, "300"]),
    ],
)
def test_threads_wait_as_the_user_has_set_or_after_a_short_spin(given, expected):
    names = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    done = subprocess.run([sys.executable, "-c", PRINTS], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(expected)


@pytest.mark.parametrize(
    ("name", "level", "rank", "shown"),
    [
        ("ssl_lightning.methods.swav", logging.WARNING, 0, True),
        ("ssl_lightning.methods.swav", logging.WARNING, 1, False),
        ("ssl_lightning.data.module", logging.INFO, 1, False),
        ("ssl_lightning.data.module", logging.ERROR, 1, True),
        ("torch.distributed", logging.WARNING, 1, True),
    ],
)
def test_the_first_process_prints_what_all_processes_log(monkeypatch, name, level, rank, shown):
    monkeypatch.setattr(rank_zero_only, "rank", rank, raising=False)
    assert _is_shown(logging.LogRecord(name, level, __file__, 1, "a line", None, None)) is shown


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ("nonesuch", "found nonesuch in SSL_LIGHTNING_PLUGINS and no package of that name"),
        ("json, ../lab", "found ../lab in SSL_LIGHTNING_PLUGINS and no package of that name"),
        (
            "json.decoder",
            "found json.decoder in SSL_LIGHTNING_PLUGINS; expected the name of the whole package: give json",
        ),
    ],
)
def test_a_plugin_that_is_not_there_is_one_line(monkeypatch, capsys, plugins, expected):
    monkeypatch.setenv("SSL_LIGHTNING_PLUGINS", plugins)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    assert run(["fit", "--config", "simclr", "--config", "data/digits"]) == 64
    assert expected in capsys.readouterr().err
