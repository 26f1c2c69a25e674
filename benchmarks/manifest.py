"""Costs of a manifest: reading real tars, and merge (with conversion) and training at many rows.

    python -m benchmarks.manifest read IMAGES.tar --out results.json
    python -m benchmarks.manifest rows 1000000 --out results.json
    python -m benchmarks.manifest train 10000000 --out results.json

`rows` makes the parts without reading images: each has distinct random SHA-256. It measures what depends on the number
of rows, not the reading of that many images. Each step runs in a process of its own, for its peak memory.

`train` makes one shard of 10,000 images, with hard links to it as the other shards, and a manifest of all of them. It
trains 20 steps of a small SimCLR in each order. Measured are the time from the data module to the end of the first
step, and the memory of the process and of its workers at the end, without mapped files.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa

SHARD = 10_000


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def read(path: str) -> dict:
    import hashlib

    import torch

    from ssl_lightning.data.decode import decode
    from ssl_lightning.data.hashing import difference_hash
    from ssl_lightning.data.layout import layout_of
    from ssl_lightning.data.limits import DEFAULT_LIMITS
    from ssl_lightning.data.manifest.build import build
    from ssl_lightning.data.options import DEFAULT_OPTIONS
    from ssl_lightning.data.sources.opening import file_table

    torch.set_num_threads(1)
    seconds = {}

    def timed(name, work):
        began = time.process_time()
        result = work()
        seconds[name] = time.process_time() - began
        return result

    table = timed("index", lambda: file_table(path, DEFAULT_OPTIONS.selection))
    data = timed("read", lambda: [table.read(row) for row in range(len(table))])
    timed("sha256", lambda: [hashlib.sha256(each).digest() for each in data])
    timed("layout", lambda: [layout_of(each, DEFAULT_LIMITS) for each in data])
    pixels = timed("layout_and_decode", lambda: [decode(each) for each in data])
    timed("hash", lambda: [difference_hash(each) for each in pixels])
    del pixels
    with tempfile.TemporaryDirectory() as folder:
        wall = time.perf_counter()
        timed("build", lambda: build([path], Path(folder) / "pool.parquet", DEFAULT_OPTIONS, 1))
        wall = time.perf_counter() - wall
    return {
        "files": len(table),
        "mean_bytes": float(table.sizes.mean()),
        "cpu_seconds": seconds,
        "build_files_per_cpu_second": len(table) / seconds["build"],
        "build_files_per_second": len(table) / wall,
    }


def make(folder: str, count: str) -> dict:
    from pyarrow import parquet

    from ssl_lightning.data.manifest.planned import Plan
    from ssl_lightning.data.manifest.schema import PART, table_of, write_options

    random, parts, places = np.random.default_rng(0), [], {}
    root = Path(folder) / "pool.parquet.parts"
    root.mkdir(parents=True)
    for shard in range(int(count) // SHARD):
        name, size = f"{shard:032d}", np.full(SHARD, 920)
        content = random.bytes(32 * SHARD)
        columns = {
            "source": ["."] * SHARD, "shard": [f"s{shard:06d}.tar"] * SHARD,
            "member": [f"class/{row:08d}.jpg" for row in range(SHARD)],
            "offset": np.arange(SHARD) * 1536 + 512, "size": size,
            "sha256": [content[32 * row : 32 * row + 32] for row in range(SHARD)],
            "phash": random.integers(2**63, size=SHARD).astype(np.uint64),
            "width": np.full(SHARD, 32), "height": np.full(SHARD, 32), "format": ["JPEG"] * SHARD,
            "mode": ["RGB"] * SHARD, "orientation": np.ones(SHARD, int), "status": ["ok"] * SHARD,
            "label": [None] * SHARD, "metadata": [None] * SHARD, "changed_ns": np.zeros(SHARD, int),
        }  # fmt: skip
        parquet.write_table(table_of(columns, PART), root / f"{name}.parquet", **write_options(PART))
        parts.append(name)
        places[name] = [".", f"s{shard:06d}.tar"]
    Plan({"options": {}, "sources": []}, parts, places).write(root)
    return {}


def merge(folder: str) -> dict:
    from ssl_lightning.data.manifest.build import merge_parts

    imported, began = peak(), time.perf_counter()
    changes = merge_parts(Path(folder) / "pool.parquet.parts", Path(folder) / "pool.parquet")
    return {"seconds": time.perf_counter() - began, "peak_mb": peak(), "imports_mb": imported, "rows": changes.rows}


def map_rows(folder: str) -> dict:
    from ssl_lightning.data.manifest.images import ManifestImages  # the imports of a run
    from ssl_lightning.data.manifest.mapped import mapped

    imported, began = peak(), time.perf_counter()
    rows = mapped(Path(folder) / "pool.parquet")
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_mb": peak(), "imports_mb": imported, "rows": len(rows.arrays["ids"]),
            "class": ManifestImages.__name__}  # fmt: skip


STEPS = {"make": make, "merge": merge, "merge again": merge, "start": map_rows}


def rows(count: int) -> dict:
    folder = tempfile.mkdtemp()
    found = {}
    try:
        for step in STEPS:
            command = [sys.executable, "-m", "benchmarks.manifest", "step", step, folder, str(count)]
            shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[step] = json.loads(shown.splitlines()[-1])
        found["manifest_bytes"] = (Path(folder) / "pool.parquet").stat().st_size
        mapped = Path(folder).glob("pool.parquet.mapped/*/*")
        found["mapped_bytes"] = sum(path.stat().st_size for path in mapped)
    finally:
        shutil.rmtree(folder)
    return found


def linked(folder: Path, count: int) -> None:
    """A manifest of `count` rows with images that exist: one shard under many names."""
    import io
    import tarfile

    from PIL import Image
    from pyarrow import parquet
    from sklearn.datasets import load_digits

    from ssl_lightning.data.manifest.build import build, merge_parts
    from ssl_lightning.data.manifest.planned import Plan
    from ssl_lightning.data.manifest.schema import PART, write_options
    from ssl_lightning.data.options import DEFAULT_OPTIONS

    digits = load_digits().images
    with tarfile.open(folder / "s000000.tar", "w") as file:
        for row in range(SHARD):
            stream, side = io.BytesIO(), 16 + row % 5
            image = Image.fromarray((digits[row % len(digits)] * 15).astype(np.uint8)).resize((side, side))
            image.save(stream, "PNG")
            entry = tarfile.TarInfo(f"{row:08d}.png")
            entry.size = stream.tell()
            file.addfile(entry, io.BytesIO(stream.getvalue()))
    build([str(folder / "s000000.tar")], folder / "one.parquet", DEFAULT_OPTIONS, 1)
    (part,) = (folder / "one.parquet.parts").glob("*.parquet")
    table, parts, places = parquet.read_table(part, schema=PART), [], {}
    root = folder / "pool.parquet.parts"
    root.mkdir()
    for shard in range(count // SHARD):
        name, file = f"{shard:032d}", f"s{shard:06d}.tar"
        if shard:
            os.link(folder / "s000000.tar", folder / file)
        column = pa.array([file] * SHARD).cast(PART.field("shard").type)
        own = table.set_column(PART.get_field_index("shard"), PART.field("shard"), column)
        parquet.write_table(own, root / f"{name}.parquet", **write_options(PART))
        parts.append(name)
        places[name] = [".", file]
    Plan({"options": {}, "sources": []}, parts, places).write(root)
    merge_parts(root, folder / "pool.parquet")


def fit(folder: Path, count: int, order: str) -> dict:
    import torch
    from lightning.pytorch import Trainer

    from ssl_lightning.data import Blocks, UncuratedImages, View
    from ssl_lightning.methods import SimCLR
    from ssl_lightning.models import ResNet18

    imported, began, found = resident(os.getpid()), time.perf_counter(), {}

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            found.setdefault("first_step_seconds", time.perf_counter() - began)

        def on_train_end(self, *_: object) -> None:
            found["main_mb"] = resident(os.getpid())
            found["worker_mb"] = [resident(child) for child in children(os.getpid())]

    torch.manual_seed(0)
    data = UncuratedImages(
        path=str(folder / "pool.parquet"), image_size=16, views=[View(count=2)], order=order, blocks=Blocks()
    )
    trainer = Trainer(
        max_steps=20, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Clock()], limit_val_batches=0, default_root_dir=str(folder),
    )  # fmt: skip
    trainer.fit(SimCLR(backbone=ResNet18(width=4)), datamodule=data)
    return {"rows": data.num_samples, **found, "imports_mb": imported}


def resident(process: int) -> int:
    """Memory in MB that is not a mapped file, so without the columns of the manifest, which processes share."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) // 1024


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def train(count: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        linked(Path(name), count)
        found = {}
        for order in ("full", "blocks"):
            command = [sys.executable, "-m", "benchmarks.manifest", "step", f"fit {order}", name, str(count)]
            shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[order] = json.loads(shown.splitlines()[-1])
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["read", "rows", "train", "step"])
    parser.add_argument("values", nargs="+")
    parser.add_argument("--out")
    given = parser.parse_args()
    if given.what == "step":
        step, folder, count = given.values
        name, _, order = step.partition(" ")
        if name == "fit":
            print(json.dumps(fit(Path(folder), int(count), order)))
        else:
            print(json.dumps(make(folder, count) if step == "make" else STEPS[step](folder)))
        return
    value = given.values[0]
    found = read(value) if given.what == "read" else {"rows": rows, "train": train}[given.what](int(value))
    text = json.dumps(found, indent=2)
    print(text)
    if given.out:
        Path(given.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
