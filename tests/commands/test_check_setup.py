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
    *_, speed, single, half = shown.splitlines()
    assert speed.startswith("speed on ")
    assert "images/s in training" in speed
    for line, precision in ((single, "32-true"), (half, "bf16-mixed")):
        option, value, per_second = line.split()
        assert (option, value) == ("--trainer.precision", precision)
        assert float(per_second) > 0


def test_products_are_taken_in_bfloat16_when_requested(monkeypatch):
    monkeypatch.setattr(check_setup, "SECONDS", 0.01)
    monkeypatch.setattr(check_setup, "BATCH", 8)
    dtypes = []
    build = check_setup.ResNet18.build

    def watched(spec):
        network = build(spec)
        network.register_forward_hook(lambda module, images, features: dtypes.append(features.dtype))
        return network

    monkeypatch.setattr(check_setup.ResNet18, "build", watched)
    for half in (False, True):
        assert check_setup.images_per_second(torch.device("cpu"), half) > 0
    assert set(dtypes) == {torch.float32, torch.bfloat16}
