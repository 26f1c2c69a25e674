"""Commands, example images and backbones for a notebook that begins with a folder of images."""

import shlex
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.inspect.run import Run

LINES = 6
"""Lines of the output of a command that a notebook shows."""


def command(line: str) -> None:
    """Carry out `ssl-lightning <line>` in a process of its own, and print the command and the end of its output.

    A `fit` that was carried out before with the same settings returns at once.

    Args:
        line: Subcommand and options as in a shell, such as "fit --config swav --run.name mine".

    Raises:
        UsageError: If the command fails; with its error.
    """
    print(f"ssl-lightning {line}")
    done = subprocess.run(
        [sys.executable, "-m", "ssl_lightning", *shlex.split(line)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        errors = [each for each in done.stderr.splitlines() if each.strip()] or [f"exit code {done.returncode}"]
        raise UsageError(f"found a command that failed: {errors[-1]}")
    shown = [each for each in done.stdout.splitlines() if each.strip()][-LINES:]
    if shown:
        print("\n".join(shown))


def example_images(folder: str | Path, count: int = 600) -> str:
    """Write handwritten digits of scikit-learn as PNG files, without labels, and return the folder.

    Args:
        folder: Where to write them; missing folders are created.
        count: Number of images, at most 1,797.

    Raises:
        DataError: If the folder cannot be written.
    """
    from sklearn.datasets import load_digits

    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for number, digit in enumerate(load_digits(return_X_y=True)[0][:count]):
            Image.fromarray((digit.reshape(8, 8) * 255 / 16).astype("uint8")).save(Path(folder) / f"{number:04}.png")
    except OSError as error:
        raise DataError(f"found {folder}, which cannot be written ({error.strerror}); give another folder") from error
    return str(folder)


def save_backbone(run: Run, path: str | Path) -> str:
    """Write the weights of the backbone with the names of timm or torchvision, and describe the file in a sentence.

    The input of the network is a normalized image: `run.method.preprocessing` has its size, mean and std.

    Args:
        run: From `load_run`.
        path: The file, such as backbone.pt.

    Raises:
        DataError: If the file cannot be written.
    """
    body = run.method.backbone.body
    try:
        torch.save(body.state_dict(), path)
    except (OSError, RuntimeError) as error:
        raise DataError(f"found {path}, which cannot be written; give another path: {error}") from error
    parameters = sum(parameter.numel() for parameter in body.parameters())
    size = run.method.preprocessing.image_size
    return (
        f"{path}: {type(body).__name__}, {parameters / 1e6:.2f} M parameters, {run.method.backbone.num_features} "
        f"features of images of {size} px"
    )
