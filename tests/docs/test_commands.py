"""Commands and Python code in README and pages: the command line takes them all, and each page runs in small."""

import logging
import re
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from ssl_lightning.entry import run
from tests.docs.pages import PAGES, SHELL, Block, blocks, calls, runnable, title

LOOPS = ("fit", "validate", "test", "predict")
SMALL_SWEEP = {
    '--trainer.max_epochs, "6"': '--trainer.max_steps, "1", --model.backbone.width, "4"',
    '--trainer.max_epochs, "2"': '--trainer.max_steps, "1"',
    "data/cifar10": "data/synthetic",
}
"""Parts of the command of a sweep, and what replaces them."""
FAST = {"README.md"}
"""Pages that run in the fast tests; the others are slow."""
TINY = [
    *("--data.batch_size", "16", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "2", "--trainer.log_every_n_steps", "1"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
]
NARROW = ["--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8"]
HEAD = ["--model.hidden", "[16]", "--model.projection", "8"]
SMALLER = {
    "1_base": HEAD,
    "1_pretrain": [],
    "3_distill": [],
    "3_expert": HEAD,
    "3_fit": [],
    "4_distill": HEAD,
    "byol": [*HEAD, "--model.predictor_hidden", "[16]"],
    "deepcluster": ["--model.num_clusters", "8"],
    "deepcluster_v2": ["--model.num_clusters", "8", *HEAD, "--trainer.max_epochs", "2"],
    "instance_recognition": ["--model.projection", "8"],
    "local_aggregation": ["--model.num_clusters", "8", "--model.num_neighbors", "8", "--model.projection", "8"],
    "moclr": HEAD,
    "rotation_prediction": [],
    "seer": ["--model.num_prototypes", "8", *HEAD],
    "simclr": HEAD,
    "supervised": [],
    "swav": ["--model.num_prototypes", "8", *HEAD],
}
"""What a `fit` of each configuration is made small with, beside `TINY` and `NARROW`."""
SMALL_PYTHON = {"max_epochs=12,": "max_epochs=1, limit_train_batches=2, enable_progress_bar=False,"}
SMALL_IMAGES = {
    **dict.fromkeys(("data/cifar10", "data/uncurated"), "data/synthetic"),
    "configs/data/cifar10.yaml": "configs/data/synthetic.yaml",
}
"""Images that every machine has, for those that not every machine has."""
NAMED_IMAGES = re.compile("-(cifar10|uncurated)-")
"""The same in the default names of runs."""

every_page = pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=title)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reader's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    monkeypatch.setattr(logging.getLogger("ssl_lightning"), "level", logging.INFO)
    monkeypatch.syspath_prepend(str(tmp_path))
    matplotlib.use("agg")
    return tmp_path


def furnish(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(240, 24, 30, 3), dtype=np.uint8)
    names = [f"images/{number}.jpg" for number in range(200)]
    names += [f"labeled/{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in range(10)]
    for name, image in zip(names, pixels, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    save_file(timm.create_model("resnet18").state_dict(), folder / "resnet18.safetensors")


@every_page
def test_every_command_is_one_that_the_command_line_takes(page, folder, capsys):
    for block in runnable(page):
        write_yaml(block, folder)
        for program, *arguments in calls(block, folder) if block.language in SHELL else ():
            if program == "ssl-lightning" and arguments[0] in LOOPS and "my_" not in " ".join(arguments):
                with pytest.raises(SystemExit) as left:
                    run([*arguments, "--print_config"])
                assert left.value.code == 0, f"{arguments}\n{capsys.readouterr().err}"
                assert "class_path" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=title(page), marks=[] if title(page) in FAST else pytest.mark.slow)
        for page in PAGES
        if any(block.language in {*SHELL, "python"} for block in runnable(page)) and page.stem != "extending"
    ],
)
def test_a_page_runs_from_its_first_block_to_its_last(page, folder, capsys):
    furnish(folder)
    for block in runnable(page):
        write_yaml(block, folder)
        if block.language == "python":
            code = block.text
            for found, small in SMALL_PYTHON.items():
                code = code.replace(found, small)
            exec(compile(code, title(page), "exec"), {"__name__": "page"})
        for program, *arguments in calls(block, folder, stages=True) if block.language in SHELL else ():
            if program == "ssl-lightning" and arguments != ["demo"]:
                follow(arguments, capsys)


def follow(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Carry out a command in small."""
    parses_only = any(argument.startswith("--print_config") for argument in arguments)
    try:
        code = run(arguments if parses_only else small(arguments))
    except SystemExit as left:
        code = left.code
    assert not code, f"{arguments}\n{capsys.readouterr().err[-2000:]}"


def small(arguments: list[str]) -> list[str]:
    """A command on fewer steps, narrower networks and images that are at hand."""
    given = [value for option, value in pairwise(arguments) if option == "--config"]
    arguments = [NAMED_IMAGES.sub("-synthetic-", SMALL_IMAGES.get(argument, argument)) for argument in arguments]
    if arguments[0] in ("validate", "test", "predict"):
        return [*arguments, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    if arguments[0] != "fit":
        return arguments
    if "--model.backbone.name" in arguments:  # of the network that NARROW replaces
        place = arguments.index("--model.backbone.name")
        arguments = [*arguments[:place], *arguments[place + 2 :]]
    return [*arguments, *TINY, *NARROW, *SMALLER[next(Path(name).stem for name in given if Path(name).stem in SMALLER)]]


def write_yaml(block: Block, folder: Path) -> None:
    """Write a block of YAML to the file that the line before it names."""
    if block.language == "yaml":
        (name,) = re.findall(r"`(\w+\.yaml)`", block.before)
        text = block.text
        for found, smaller in SMALL_SWEEP.items():
            text = text.replace(found, smaller)
        (folder / name).write_text(text)


def test_a_packaged_configuration_is_printed_for_a_start_of_ones_own(folder, capsys):
    pytest.importorskip("ssl_lightning.cli.subcommands", reason="needs `ssl-lightning config`")
    assert run(["config", "swav"]) == 0
    (folder / "my_swav.yaml").write_text(capsys.readouterr().out)
    with pytest.raises(SystemExit) as left:
        run(["fit", "--config", "my_swav.yaml", "--config", "data/cifar10", "--print_config"])
    assert left.value.code == 0
