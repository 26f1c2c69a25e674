"""Mutated images: the decoder gives an image or one exception, and no row ever gets another row's image."""

import random
import resource
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from .bench import Bench
from .cells import Cell, Outcome
from .hostile_images import BOMBS, LARGE, bombs, damaged, given_cases, whole_file

SIZE = 250
SLOW = 2.0
"""Seconds of one file that are too many."""
GROWTH = 300
"""MiB of resident memory."""


def mutated(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """Decode damaged files one by one, then all of them as rows among good ones, in a process of their own."""
    folder = bench.folder / "files" / f"fuzz-{number}"
    answer, done = bench.forks.call(lambda: _decode_all(folder, draw))
    if answer is None:
        problems = [f"the process ended with {done.code} at {folder / 'at.bin'}: {done.output[-300:]}"]
        return Outcome(f"{SIZE} files", "crashed", problems, SIZE)
    problems = answer["problems"]
    if not problems:
        shutil.rmtree(folder)
    return Outcome(f"{SIZE} mutated files", "", problems, SIZE, answer["counts"])


def made_to_cost(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """One file that costs time or memory, and those of SSL_LIGHTNING_CASES, which may also be good."""
    names = [*sorted(bombs()), *map(str, given_cases())]
    assert len(bombs()) == BOMBS
    name = names[number % len(names)]
    content = bombs()[name] if name in bombs() else Path(name).read_bytes()
    answer, done = bench.forks.call(lambda: _measured(content), limit=60)
    if answer is None:
        return Outcome(Path(name).name, "crashed", [f"the process ended with {done.code}: {done.output[-300:]}"])
    problems = answer["problems"]
    if name in bombs().keys() - LARGE and answer["found"] == "decoded":
        problems = [*problems, "decoded"]
    return Outcome(Path(name).name, answer["found"], problems)


def _decode_all(folder: Path, draw: random.Random) -> dict[str, Any]:
    counts, problems = Counter(), []
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "rows").mkdir(parents=True)
    for place in range(SIZE):
        how, content = damaged(whole_file(draw), draw)
        (folder / "at.bin").write_bytes(content)
        result = _measured(content)
        counts[result["found"]] += 1
        problems += [f"{how} {place}: {problem}" for problem in result["problems"]]
        if problems:
            (folder / f"problem-{place}.bin").write_bytes(content)
        (folder / "rows" / f"{place:04d}-{result['found'] == 'decoded':d}.jpg").write_bytes(content)
    return {"counts": counts, "problems": problems + _paired(folder / "rows", draw)}


def _measured(content: bytes) -> dict[str, Any]:
    """What the decoder makes of a file, and what is wrong with that."""
    import torch

    from ssl_lightning.data.decode import Unreadable, decode

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    problems = []
    try:
        image = decode(content)
    except Unreadable as error:
        found = f"rejected: {error.reason}"
    except Exception as error:
        found, problems = "an exception", [f"{type(error).__name__}: {error}"]
    else:
        found = "decoded"
        if image.dtype != torch.uint8 or image.dim() != 3 or len(image) != 3 or not image.numel():
            problems = [f"an image of {tuple(image.shape)}, {image.dtype}"]
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    problems += [f"took {seconds:.1f} s"] if seconds > SLOW else []
    problems += [f"took {grown:.0f} MiB"] if grown > GROWTH else []
    return {"found": found, "problems": problems}


def _paired(folder: Path, draw: random.Random) -> list[str]:
    """Read all files as rows, some of them images that encode their name as color; every row has its own, or none."""
    import torch

    from ssl_lightning.data.packs import open_unlabelled

    for _ in range(SIZE // 10):
        color = tuple(draw.randrange(256) for _ in range(3))
        place = draw.randrange(10**4)
        Image.new("RGB", (8, 8), color).save(folder / f"{place:04d}-c{color[0]}.{color[1]}.{color[2]}.png")
    table, problems = open_unlabelled(str(folder)), []
    rows = torch.randperm(len(table), generator=torch.Generator().manual_seed(draw.randrange(2**31)))
    for some in rows.split(16):
        images, valid = table.read(some)
        for row, image, readable in zip(some.tolist(), images, valid.tolist(), strict=True):
            kind = Path(table.name(row)).stem.partition("-")[2]
            if kind.startswith("c"):
                right = readable and image[:, 0, 0].tolist() == [int(part) for part in kind[1:].split(".")]
            else:
                right = readable == bool(int(kind))
            problems += [] if right else [f"row {row} ({table.name(row)}) has another row's image"]
    return problems


CELLS = [
    Cell(
        "fuzz",
        "mutated JPEG, PNG, WebP, GIF, BMP and TIFF files",
        f"an image or one typed reason, in {SLOW:.0f} s and {GROWTH} MiB; no process dies; a row keeps its own image",
        5000,
        mutated,
        SIZE,
    ),
    Cell(
        "bombs",
        "files that are made to cost time or memory, or are no image",
        f"rejected, or decoded where that is allowed, in {SLOW:.0f} s and {GROWTH} MiB",
        BOMBS + len(given_cases()),
        made_to_cost,
    ),
]
