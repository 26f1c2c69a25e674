"""Flipped bits and cut files: every file of a run and of a stage is checked before it is used, or does no harm."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bench import Bench, complaint
from .cells import Cell, Outcome
from .faults import Fault

METHOD = "deepcluster"
SIZE = 25
STOPPED, FINISHED = "files/stopped", "files/finished"
"""Runs below the folder of the soak: one that was killed at step 30, one that was not."""


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file at random; what was done."""
    content = bytearray(path.read_bytes())
    how = draw.choices(("bit", "cut", "zeros", "empty"), (16, 4, 2, 1))[0]
    place = draw.randrange(len(content))
    if how == "bit":
        content[place] ^= 1 << (bit := draw.randrange(8))
        how = f"bit {bit} of byte {place}"
    elif how == "zeros":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
        how = f"zeros at byte {place}"
    else:
        del content[0 if how == "empty" else place :]
        how = f"cut to {len(content)} bytes"
    if bytes(content) == path.read_bytes():
        content.append(0)
        how = "a byte at the end"
    _replace(path, content)
    return how


def _replace(path: Path, content: bytes | bytearray) -> None:
    """Give a file other content, as a new file: what was loaded before may still be mapped to the old one."""
    path.unlink()
    path.write_bytes(content)


def material(bench: Bench) -> Path:
    """A stopped and a finished run, a stage and a feature file, made once."""
    files = bench.folder / "files"
    if not (files / "material.ok").exists():
        bench.whole(METHOD)
        bench.forget("material")
        bench.start("material", METHOD, Fault("step", 30))
        _copy(bench.folder / "material", bench.folder / STOPPED)
        shutil.copy(bench.folder / "material.txt", files / "stopped.txt")
        _copy(bench.folder / bench.whole(METHOD), bench.folder / FINISHED)
        shutil.copy(bench.folder / "whole-deepcluster.txt", files / "finished.txt")
        bench.whole("predict")
        answer, done = bench.forks.call(lambda: _write_files(bench, files))
        if answer is None:
            raise RuntimeError(done.output)
        (files / "material.ok").touch()
    return files


def _named(folder: Path, file: str) -> Path:
    """A file of a folder, "newest" being the name of the newest checkpoint."""
    path = folder / file
    if path.stem != "newest":
        return path
    newest = max(path.parent.glob("step-*.ckpt"), key=lambda one: int(one.stem.partition("-")[2]))
    return newest.with_suffix(path.suffix)


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def _write_files(bench: Bench, files: Path) -> bool:
    import torch

    from ssl_lightning.clustering.feature_file import FeatureFile

    stage = bench.folder / "whole-predict-stage"
    for ending in (".safetensors", ".parquet"):
        shutil.copy(stage.with_suffix(ending), files / f"stage{ending}")
    features = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    metadata = {"data": "0" * 64, "checkpoint": "1" * 64, "layer": "features", "weights": "online", "data_config": "{}"}
    rows = torch.arange(200)
    FeatureFile(features, rows, rows % 10, metadata).save(files / "features.safetensors")
    return True


def loaded(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """Damage one kind of file again and again, and load it, in a process of its own."""
    files = material(bench)
    kind = list(LOADS)[number % len(LOADS)]
    scratch = files / f"loaded-{number}"
    _copy(files / "stopped" / "checkpoints", scratch)
    for path in (*files.glob("stage.*"), files / "features.safetensors"):
        shutil.copy(path, scratch / path.name)
    answer, done = bench.forks.call(lambda: _load_damaged(scratch, kind, draw))
    if answer is None:
        return Outcome(kind, "crashed", [f"the process ended with {done.code}: {done.output[-300:]}"], SIZE)
    shutil.rmtree(scratch)
    return Outcome(f"{SIZE} times {kind}", "", answer["problems"], SIZE, answer["counts"])


def _load_damaged(folder: Path, kind: str, draw: random.Random) -> dict[str, Any]:
    name, load = LOADS[kind]
    path = _named(folder, name)
    expected, original = load(path), path.read_bytes()
    counts, problems = Counter(), []
    for _ in range(SIZE):
        how = damage(path, draw)
        found = _verdict(load, path, expected)
        counts[f"{kind} {found}" if found in ("detected", "harmless") else f"{kind} failed"] += 1
        problems += [] if found in ("detected", "harmless") else [f"{kind}, {how}: {found}"]
        _replace(path, original)
    return {"counts": counts, "problems": problems}


def _verdict(load: Callable[[Path], Any], path: Path, expected: Any) -> str:
    from tests.runs.conftest import differences

    try:
        content = load(path)
    except ValueError:
        return "detected"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    changed = differences(content, expected)
    return f"loaded all the same ({changed[0][:150]})" if changed else "harmless"


def _newest(path: Path) -> Any:
    """Explicitly named it is rejected; without a name, the older one is found."""
    from ssl_lightning.checkpoints.read import newest_valid, read_checkpoint

    whole = newest_valid(path.parent)
    assert whole is not None
    try:
        return read_checkpoint(path.with_suffix(".ckpt"))
    except ValueError:
        if whole.stem == path.stem:
            raise RuntimeError("an explicit path is rejected, but the run would resume from it") from None
        raise


USED = ("data", "checkpoint", "data_config", "layer", "metric", "weights")
"""Metadata that is read. The name of the checksum may be damaged: without one, the content is that of an older file."""


def _stage(path: Path) -> Any:
    from ssl_lightning.clustering import Clustering

    found, metadata = Clustering.load(path)
    used = [metadata.get(name) for name in USED]
    return [found.labels, found.distances, found.centroids, found.sizes, found.objective, used]


def _subset(path: Path) -> Any:
    """The rows of one cluster of the digits."""
    from ssl_lightning.data import Digits
    from ssl_lightning.data.subset import Subset

    data = Digits(image_size=8, subset=Subset(str(path), value=3))
    data.setup("predict")
    return data.training.sample_ids


def _features(path: Path) -> Any:
    from ssl_lightning.clustering.feature_file import FeatureFile

    file = FeatureFile.load(path)
    return [file.features, file.rows, file.labels, [file.metadata.get(name) for name in USED]]


LOADS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "checkpoint": ("newest.ckpt", _newest),
    "sidecar": ("newest.json", _newest),
    "stage file": ("stage.safetensors", _stage),
    "feature file": ("features.safetensors", _features),
    "stage file of a subset": ("stage.safetensors", _subset),
    "table of a subset": ("stage.parquet", _subset),
}

IN_A_RUN = [
    *((STOPPED, name) for name in ("checkpoints/newest.ckpt", "checkpoints/newest.json", "checkpoints/last.ckpt")),
    *((STOPPED, name) for name in ("run.json", "metrics.csv", "config.yaml", "LOCK")),
    *((FINISHED, name) for name in ("done.json", "checkpoints/newest.ckpt", "checkpoints/newest.json", "run.json")),
]


def resumed(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """Damage one file of a run, and give its command again."""
    material(bench)
    source, file = IN_A_RUN[number % len(IN_A_RUN)]
    name = f"damage-{number}"
    bench.forget(name)
    _copy(bench.folder / source, bench.folder / name)
    shutil.copy(bench.folder / f"{source}.txt", bench.folder / f"{name}.txt")
    how = _damage_in_run(bench.folder / name, file, draw)
    done = bench.start(name, METHOD)
    problems = complaint(done, (0, 64, 65, 75))
    lost = ""
    if done.code == 0:
        changed = [line for line in bench.differs(name, METHOD) if not line.startswith("/metrics/")]
        if changed == ["rows of metrics.csv differ"] and "metrics.csv, in which" in done.output:
            changed, lost = [], " but for rows that are logged as lost"  # they cannot be made again
        problems += changed + bench.leftovers(name)
    elif f"{name}" not in done.output:
        problems += [f"the line does not name the file: {done.output.strip().splitlines()[-1][:200]}"]
    if not problems:
        bench.forget(name)
    what = f"{Path(file).name}: " + (f"equal in the end{lost}" if done.code == 0 else f"exit {done.code}")
    return Outcome(f"{source.partition('/')[2]} run, {file}: {how}", what if not problems else "failed", problems)


def _damage_in_run(run: Path, file: str, draw: random.Random) -> str:
    path = _named(run, file)
    if path.name == "LOCK":
        path.write_bytes(draw.randbytes(draw.randrange(1, 40)))
        return "random bytes"
    if path.name != "last.ckpt":
        return damage(path, draw)
    path.unlink()
    target = draw.choice(("step-999.ckpt", "last.ckpt", "../run.json", "", "/nonexistent/step-1.ckpt"))
    path.symlink_to(target) if target else path.write_bytes(b"")
    return f"a link to {target}" if target else "an empty file"


CELLS = [
    Cell(
        "damage",
        "flipped bits, cuts, zeros in checkpoint, sidecar, stage, feature and subset files",
        "detected before use, the older checkpoint taken where there is one; or the content is the same",
        850,
        loaded,
        SIZE,
    ),
    Cell(
        "damaged_runs",
        "flipped bits, cuts, zeros, other links in every file of a stopped and of a finished run",
        "the same command finishes it equal in every bit, or one line names the file and exit 64, 65 or 75",
        150,
        resumed,
    ),
]
