"""check-setup: versions, devices, data and speed of this machine."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ssl_lightning import __version__
from ssl_lightning.data.sources.opening import holds_images
from ssl_lightning.data.views import View, make_view
from ssl_lightning.models import ResNet18

BATCH, SIZE, WIDTH = 256, 32, 16
SECONDS = 2.0
"""Seconds of the measurement, after a first step."""
BUSY = 0.5
"""Load average of the last minute from which a machine counts as busy; this command has just started."""
PACKAGES = ("torch", "torchvision", "lightning", "timm", "faiss-cpu", "scikit-learn", "jsonargparse", "wandb")


def main() -> None:
    """Print versions, devices, image packs and the training speed of this machine."""
    print(f"ssl-lightning {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in PACKAGES:
        print(f"  {package:<14} {_version(package)}")
    print(f"devices: {_devices()}")
    load = os.getloadavg()[0]
    is_busy = load >= BUSY
    if is_busy:
        print(f"busy: {load:.1f} processes ran in the last minute on average; speeds are lower than on idle cores")
    folder = Path(os.environ.get("SSL_LIGHTNING_DATA", "data"))
    print(f"packs in {folder} (SSL_LIGHTNING_DATA): {_packs(folder)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    what = f"ResNet-18 of width {WIDTH}, {SIZE} px, batches of {BATCH}, one view of each, made anew"
    print(f"speed on {device.type}, images/s in training ({what}):")
    for precision, half in (("32-true", False), ("bf16-mixed", True)):
        print(f"  --trainer.precision {precision:<10} {images_per_second(device, half):.0f}")
    if is_busy and device.type == "cpu" and torch.get_num_threads() > 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        print(
            f"  OMP_NUM_THREADS=1, 32-true        {images_per_second(device):.0f} (beside busy processes, {threads} "
            "threads can be slower than one)"
        )
        torch.set_num_threads(threads)


def images_per_second(device: torch.device, half: bool = False) -> float:
    """Training speed in images per second: views, forward, backward, update; without reading and decoding.

    Args:
        device: The device.
        half: Whether products are computed in bfloat16, which is slower on machines without units for it.
    """
    network = ResNet18(width=WIDTH).build().to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    images = torch.randint(256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    steps, start = -1, 0.0  # the first step is not counted
    while steps < 1 or time.perf_counter() - start < SECONDS:
        view = make_view(images, View(), SIZE, seed=0, epoch=steps + 1, rows=torch.arange(BATCH), number=0)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            features = network(view - 0.5)
        loss = features.float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU
        steps += 1
        start = time.perf_counter() if steps == 0 else start
    return steps * BATCH / (time.perf_counter() - start)


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
    packs = sorted(path.name for path in folder.iterdir() if holds_images(path.name) or path.is_dir())
    return ", ".join(packs) or "none; the digits need none"
