"""The README: every file and metric that it names exists, and its commands run in the order in which they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TINY = [
    *("--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8"),
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"),
    *("--trainer.limit_val_batches", "4"),
    *("--trainer.enable_progress_bar", "false"),
]
PROTOTYPES = "--model.num_prototypes 8 --model.hidden [16] --model.projection 8"
SMALLER = {
    "byol": "--model.hidden [16] --model.predictor_hidden [16] --model.projection 8",
    "deepcluster": "--model.num_clusters 8",
    "local_aggregation": "--model.num_clusters 8 --model.num_neighbors 8 --model.projection 8",
    "seer": PROTOTYPES,
    "swav": PROTOTYPES,
}
"""What its fit commands are made small with, by the stem of their config."""
PACKS = Path(os.environ.get("SSL_LIGHTNING_DATA", "data"))


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands():
    """The lines of shell blocks that name our program, without what is said about them."""
    written = [block.replace("\\\n", " ") for block in blocks("sh")]
    lines = [line.split("  #")[0].strip() for block in written for line in block.splitlines()]
    return [line for line in lines if "ssl-lightning " in line]


def test_every_link_leads_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_target_that_it_names_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`make ([a-z_-]+)", README))
    assert named >= {"setup", "demo", "test"}
    assert [target for target in sorted(named) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_there_are_commands_of_every_subcommand():
    subcommands = {line.split("ssl-lightning ")[1].split()[0] for line in commands()}
    assert subcommands >= {"fit", "validate", "predict", "check-setup"}


@pytest.mark.slow
def test_its_commands_run_one_after_the_other(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "my_lab.py").write_text(blocks("python")[0])
    (tmp_path / "overlay.yaml").write_text(blocks("yaml")[0])
    make_images(tmp_path / "images")
    environment = os.environ | {"SSL_LIGHTNING_DATA": str(PACKS.resolve())}
    program = f"{sys.executable} -m ssl_lightning "
    example = "ssl-lightning fit --config configs/deepcluster.yaml --config overlay.yaml --run.name overlay"
    for line in [*commands(), example]:
        if "cifar10" in line and not (PACKS / "cifar10.tar.xz").exists():
            continue
        command = line.replace("ssl-lightning ", program, 1)
        if " fit " in command and "--print_config" not in command:
            command = " ".join([command, *(TINY if "my_lab" not in command else TINY[4:])])
            if "my_lab" not in command:
                (method,) = re.findall(r"configs/(\w+)\.yaml", line)[:1]
                command += f" --data.batch_size 16 {SMALLER[method]}"
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
    assert (tmp_path / "runs" / "clusters.parquet").exists()
    assert (tmp_path / "runs" / "rotation" / "done.json").exists()
    assert "lowshot/1pct" in (tmp_path / "runs" / "overlay" / "metrics.csv").read_text()


def make_images(folder):
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(600, 24, 30, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.jpg")
