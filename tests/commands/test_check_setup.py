"""check-setup: what this machine has, and how fast it trains."""

import torch

from ssl_lightning.commands import check_setup
from ssl_lightning.entry import run


def test_versions_devices_packs_and_speed_are_shown(tmp_path, monkeypatch, capsys):
    (tmp_path / "some.tar.xz").touch()
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path))
    monkeypatch.setattr(check_setup, "BATCH", 8)
    monkeypatch.setattr(check_setup, "SECONDS", 0.1)
    assert run(["check-setup"]) == 0
    shown = capsys.readouterr().out
    assert "some.tar.xz" in shown
    (speed,) = (line for line in shown.splitlines() if line.startswith("speed on "))
    assert "pictures/s in training" in speed
    assert check_setup.pictures_per_second(torch.device("cpu")) > 0
