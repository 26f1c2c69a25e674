"""Costs of a manifest: reading real tars, and merge (with conversion) and start at many rows of synthetic parts.

    python -m benchmarks.manifest read IMAGES.tar --out results.json
    python -m benchmarks.manifest rows 1000000 --out results.json

`rows` makes the parts without reading images: each has distinct random SHA-256. It measures what depends on the number
of rows, not the reading of that many images. Each step runs in a process of its own, for its peak memory.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["read", "rows", "step"])
    parser.add_argument("values", nargs="+")
    parser.add_argument("--out")
    given = parser.parse_args()
    if given.what == "step":
        step, folder, count = given.values
        work = STEPS[step]
        print(json.dumps(work(folder, count) if step == "make" else work(folder)))
        return
    found = read(given.values[0]) if given.what == "read" else rows(int(given.values[0]))
    text = json.dumps(found, indent=2)
    print(text)
    if given.out:
        Path(given.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
