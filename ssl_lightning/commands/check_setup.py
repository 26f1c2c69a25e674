"""check-setup: versions, devices and data that this machine has."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ssl_lightning import __version__

PACKAGES = ("torch", "torchvision", "lightning", "timm", "faiss-cpu", "scikit-learn", "jsonargparse", "wandb")


def main() -> None:
    """Show versions, devices and the image packs that this machine has."""
    print(f"ssl-lightning {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in PACKAGES:
        print(f"  {package:<14} {_version(package)}")
    print(f"devices: {_devices()}")
    folder = Path(os.environ.get("SSL_LIGHTNING_DATA", "data"))
    print(f"packs in {folder} (SSL_LIGHTNING_DATA): {_packs(folder)}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> str:
    cpu = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return f"{cpu}, no CUDA device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{cpu}, {', '.join(names)}"


def _packs(folder: Path) -> str:
    if not folder.is_dir():
        return "the folder is not there; the digits need none"
    packs = sorted(path.name for path in folder.iterdir() if ".tar" in path.name or path.is_dir())
    return ", ".join(packs) or "none; the digits need none"
