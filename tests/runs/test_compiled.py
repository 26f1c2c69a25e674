"""Compiled training: the same loss, nearly the same gradients, under the same names of weights."""

import pytest

from ssl_lightning.checkpoints import read_checkpoint

from .test_two_processes import fit

SWAV = [
    *("--config", "configs/swav.yaml", "--model.backbone.width", "16", "--model.hidden", "[16]"),
    *(
        "--model.num_prototypes",
        "16",
        "--data.image_size",
        "16",
        "--data.batch_size",
        "64",
        "--data.reference_images",
        "200",
    ),
    *("--trainer.max_steps", "3", "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1"),
]


@pytest.mark.slow
def test_compiled_training_loses_what_eager_training_loses(tmp_path):
    losses, names = {}, {}
    for name, further in {"eager": [], "compiled": ["--trainer.callbacks+", "ssl_lightning.callbacks.Compile"]}.items():
        rows = fit(tmp_path, name, *SWAV, *further, config=[])
        losses[name] = [float(row["train/loss"]) for row in rows if row["train/loss"]]
        names[name] = list(read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"])
    assert len(losses["eager"]) == 3
    assert losses["compiled"][0] == pytest.approx(losses["eager"][0], rel=1e-5)
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=5e-3)  # compiled gradients are a thousandth off
    assert losses["compiled"] != losses["eager"]  # else nothing was compiled
    assert names["compiled"] == names["eager"]
