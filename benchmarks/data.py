"""Images a second: our batched views against torchvision v2 sample by sample, two SimCLR views of each image.

    SSL_LIGHTNING_DATA=... python benchmarks/data.py [--rounds 7] [--json PATH]

One thread, CPU time of the process, the candidates interleaved round by round; a ratio is taken within a round, so what
else the machine does falls on both. Both sides end with one float stack in 0..1 for each view. The images: CIFAR as
uint8 in memory (32 px), and real photographs as JPEG files of 500 x 375 in memory (224 px).
"""

import argparse
import io
import json
import os
import statistics
import tarfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

from ssl_lightning.data.color import blur_taps
from ssl_lightning.data.crops import resize
from ssl_lightning.data.decode import decode
from ssl_lightning.data.views import View, crop_boxes, finish_crops, make_view

VIEWS = {"plain": View(), "blur": View(gaussian_blur=0.5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ.get("SSL_LIGHTNING_DATA", "data"))
    small, large = cifar(folder, 256), photographs(folder, 16)
    figures = {}
    for name, view in VIEWS.items():
        figures[f"32 px from memory, {name}"] = compare(small, memory_candidates(view), options.rounds)
        figures[f"224 px from JPEG, {name}"] = compare(large, jpeg_candidates(view), options.rounds)
    for name, figure in figures.items():
        show(name, figure)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def memory_candidates(view):
    transform = v2_transform(view, 32)

    def ours(images):
        batch = torch.stack(images)
        rows = torch.arange(len(batch))
        return [make_view(batch, view, 32, seed=0, epoch=0, rows=rows, number=number) for number in range(2)]

    def per_sample(images):
        return [torch.stack([transform(image) for image in images]) for _ in range(2)]

    return {"ours": ours, "v2": per_sample}


def jpeg_candidates(view):
    transform = v2_transform(view, 224)

    def ours(files):  # what a loader's worker does, then what the trainer's process does
        images = [decode(file) for file in files]
        heights, widths = torch.tensor([image.shape[1:] for image in images]).unbind(1)
        views = []
        for number in range(2):
            key = {"seed": 0, "epoch": 0, "rows": torch.arange(len(files)), "number": number}
            boxes = crop_boxes(view, heights, widths, **key).tolist()
            crops = [
                resize(image[:, top : top + height, left : left + width], 224, 224)
                for image, (top, left, height, width) in zip(images, boxes, strict=True)
            ]
            views.append(finish_crops(torch.stack(crops), view, **key))
        return views

    def per_sample(read):
        def views(files):
            pairs = [(transform(image), transform(image)) for image in map(read, files)]
            return [torch.stack(stack) for stack in zip(*pairs, strict=True)]

        return views

    return {
        "ours": ours,
        "v2 on decode_jpeg": per_sample(lambda file: decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8))),
        "v2 on PIL": per_sample(lambda file: Image.open(io.BytesIO(file)).convert("RGB")),
    }


def v2_transform(view, size):
    steps = [
        v2.RandomResizedCrop(size, view.scale, view.ratio, antialias=True),
        v2.RandomHorizontalFlip(view.horizontal_flip),
        v2.RandomApply([v2.ColorJitter(*view.color_jitter)], view.color_jitter_p),
        v2.RandomGrayscale(view.grayscale),
    ]
    if view.gaussian_blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(blur_taps(size, view.sigma[1]), view.sigma)], view.gaussian_blur))
    return v2.Compose([*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def compare(images: list, candidates: dict[str, Callable], rounds: int) -> dict:
    """Images a second of each candidate, and how many times as fast as each of the others ours is, with the spread."""
    seconds = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, run in candidates.items():
            torch.manual_seed(turn)
            start = time.process_time()
            run(images)
            seconds[name].append(time.process_time() - start)
    seconds = {name: values[1:] for name, values in seconds.items()}  # the first round warms up
    ours = seconds["ours"]
    ratios = {
        name: sorted(theirs / own for theirs, own in zip(values, ours, strict=True))
        for name, values in seconds.items()
        if name != "ours"
    }
    return {
        "images_per_second": {name: len(images) / statistics.median(values) for name, values in seconds.items()},
        "ratio": {
            name: {"median": statistics.median(values), "low": values[0], "high": values[-1]}
            for name, values in ratios.items()
        },
    }


def show(name, figure):
    print(name)
    for candidate, speed in figure["images_per_second"].items():
        ratio = figure["ratio"].get(candidate)
        spread = f"   ours is {ratio['median']:.1f}x ({ratio['low']:.1f} to {ratio['high']:.1f})" if ratio else ""
        print(f"  {candidate:<18} {speed:>8.0f} images/s{spread}")


def cifar(folder, count):
    with tarfile.open(folder / "cifar10.tar.xz") as pack:
        members = islice((member for member in pack if member.name.endswith((".jpg", ".png"))), count)
        return [decode(pack.extractfile(member).read()).contiguous() for member in members]


def photographs(folder, count):
    with tarfile.open(folder / "uncurated-000000.tar") as pack:
        members = islice((member for member in pack if member.name.endswith(".jpg")), count)
        return [enlarged(pack.extractfile(member).read()) for member in members]


def enlarged(file):
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(file)).convert("RGB").resize((500, 375), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
