"""Breaks what each cell of the soak checks: every cell has to notice, or its zeros mean nothing.

`python -m tests.soak.sabotage --out FOLDER` prints a line of JSON for every cell: what it reported.
"""

import argparse
import contextlib
import json
import random
import sys
from pathlib import Path
from unittest import mock

from .forks import Forks, import_everything


def sabotages() -> list[tuple[str, int, list]]:
    """A cell, the number of a case, and patches with which it must fail; at least one for every cell."""
    import torch

    import ssl_lightning.callbacks.recluster as recluster
    import ssl_lightning.checkpoints.allowlist as allowlist
    import ssl_lightning.checkpoints.durable as durable
    import ssl_lightning.checkpoints.read as read
    import ssl_lightning.data.decode as decode
    import ssl_lightning.data.reading as reading
    import ssl_lightning.data.stored as stored
    import ssl_lightning.runs.checkpointing as checkpointing
    import ssl_lightning.runs.preemption as preemption
    from ssl_lightning.files import sha256_of

    def careless(path, write):
        with path.open("wb") as file:
            write(file)
        return sha256_of(path)

    def forgetful(self, trainer, pl_module, checkpoint):
        """Random state is not restored."""

    def by_the_clock(seed, purpose, *counters, **more):
        import time

        return time.time_ns() % 2**31

    inner_decoded = stored.StoredImages._decoded

    def substituted(self, row):
        image = inner_decoded(self, row)
        return torch.zeros(3, 8, 8, dtype=torch.uint8) if isinstance(image, str) else image

    def trusting(path):
        """What the sidecar has, if there is one, whatever the file holds."""
        sidecar = read.sidecar_path(path)
        return json.loads(sidecar.read_text())["sha256"] if sidecar.exists() else "unknown"

    def nothing(*arguments, **more):
        return None

    inner_decode, inner_read = decode.decode, stored.StoredImages.read

    def fragile(content, *more):
        if len(content) % 50 == 0:
            raise KeyError("a kind of error that no caller expects")
        return inner_decode(content, *more)

    def blind(content, *more):
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def shifted(self, rows):
        images, valid = inner_read(self, rows)
        return images[1:] + images[:1], valid

    patch, trust = mock.patch.object, mock.patch.object(read, "_verify", trusting)
    saving = checkpointing.Checkpointing
    return [
        ("steps", 2, [patch(saving, "on_load_checkpoint", forgetful)]),
        ("writes", 2, [patch(durable, "write_atomically", careless), trust]),
        ("clusterings", 0, [patch(recluster, "number", by_the_clock)]),
        ("signals", 0, [patch(preemption.Preemption, "_note", nothing)]),
        ("pairs", 0, [patch(preemption.Preemption, "_note", nothing)]),
        ("disk", 8, [patch(checkpointing, "FAILURES_ALLOWED", 10**6), patch(saving, "on_train_end", nothing)]),
        ("nan", 2, [patch(saving, "on_before_backward", nothing)]),
        # killed before the last epoch: once all batches of the last one are read, nobody misses a worker
        ("workers", 5, [patch(reading, "_is_worker_death", nothing)]),
        ("images", 0, [patch(stored.StoredImages, "_decoded", substituted)]),
        ("damage", 0, [trust]),
        ("damaged_runs", 0, [trust]),
        ("fuzz", 0, [patch(decode, "decode", fragile)]),
        ("fuzz", 0, [patch(stored.StoredImages, "read", shifted)]),
        ("bombs", 0, [patch(decode, "decode", blind)]),
        ("untrusted", 12, [patch(allowlist, "set_parsing_settings", nothing)]),
    ]


def main() -> int:
    """Carry out a case of each cell; 0 if all of them reported something."""
    parser = argparse.ArgumentParser("python -m tests.soak.sabotage", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faults", default="all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    import_everything()
    from .bench import Bench
    from .catalog import CELLS
    from .damage import material
    from .training import whole_in_files

    out = options.out.resolve()
    bench = Bench(out, Forks(out / "output.log"))
    material(bench)  # what is whole is made before anything is broken
    whole_in_files(bench)
    bench.whole("pair")
    cells, unnoticed = {cell.name: cell for cell in CELLS}, 0
    for name, number, patches in sabotages():
        if options.faults not in ("all", name):
            continue
        with contextlib.ExitStack() as held:
            for patch in patches:
                held.enter_context(patch)
            problems = cells[name].case(bench, random.Random(f"0 {name} {number}"), number).problems
        unnoticed += not problems
        sys.stdout.write(json.dumps({"cell": name, "problems": problems[:3]}) + "\n")
        sys.stdout.flush()
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
