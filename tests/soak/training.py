"""Losses that are not finite, worker processes that die, and files among the images that are none."""

import random

from .bench import METHODS, Bench, complaint
from .cells import Cell, Outcome
from .faults import Fault
from .forks import Reaction
from .hostile_images import HOSTILE, IMAGES, image_folder

NAN = [method for method in METHODS if method != "rotation_prediction"]  # its views are four, made in the step
SIZES = ("--data.batch_size", "32", "--trainer.limit_val_batches", "0")


def not_finite(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """NaN in an image, once there is a checkpoint."""
    method, name = NAN[number % len(NAN)], f"nan-{number}"
    step = draw.randrange(6, bench.trained(bench.whole(method)))
    bench.forget(name)
    done = bench.start(name, method, faulty=f"nan@step={step}")
    problems = complaint(done, (70,)) + _finite(bench, name)
    again = bench.start(name, method)
    problems += [f"the same command again: {problem}" for problem in complaint(again, (0,))]
    problems += bench.differs(name, method) if again.code == 0 else []
    if not problems:
        bench.forget(name)
    return Outcome(f"{method}: NaN at step {step}", f"exit {done.code}, then equal", problems)


def _finite(bench: Bench, name: str) -> list[str]:
    from ssl_lightning.checkpoints import read_checkpoint

    saved = sorted((bench.folder / name / "checkpoints").glob("step-*.ckpt"))
    problems = [] if saved else ["no checkpoint is left"]
    for path in saved:
        state = read_checkpoint(path)["state_dict"]
        wrong = [key for key, value in state.items() if hasattr(value, "isfinite") and not value.isfinite().all()]
        problems += [f"{path.name}: {wrong[0]} is not finite"] if wrong else []
    return problems


def whole_in_files(bench: Bench) -> tuple[str, tuple[str, ...]]:
    """An uninterrupted run with images read by workers, and its options."""
    extra = (*SIZES, "--data.path", str(image_folder(bench.folder / "files" / "good", hostile=0)))
    return bench.whole("in_files", extra), extra


def worker_killed(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """SIGKILL to one of two worker processes, a random time after a random step."""
    (whole, extra), name = whole_in_files(bench), f"workers-{number}"
    step, delay, worker = draw.randrange(1, bench.trained(whole) - 1), draw.uniform(0, 0.05), draw.randrange(2)
    reactions = [Reaction(delay, worker=worker)]
    bench.forget(name)
    done = bench.start(name, "in_files", Fault("step", step, action="report"), reactions=reactions, extra=extra)
    problems = [] if done.sent else ["no worker was killed"]
    problems += complaint(done, (0,))
    problems += bench.differs(name, "in_files") if done.code == 0 else []
    if not problems:
        bench.forget(name)
    return Outcome(f"worker {worker} killed {1000 * delay:.0f} ms after step {step}", "continued, equal", problems)


def images_among(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """A run over a folder in which some files are damaged or hostile: none is trained on, all others are."""
    folder = image_folder(bench.folder / "files" / f"hostile-{number}", HOSTILE, draw.randrange(2**32))
    name, extra = f"images-{number}", (*SIZES, "--data.path", str(folder), "--data.max_unreadable", "0.2")
    bench.forget(name)
    done = bench.start(name, "hostile_files", extra=extra)
    problems = complaint(done, (0,))
    rows = {row for lines in bench.steps(name).values() for line in lines for row in _rows(line)}
    files = sorted(path.name for path in folder.iterdir())
    bad = [files[row] for row in rows if files[row].startswith("hostile")]
    problems += [f"trained on {bad[0]}"] if bad else []
    missing = [name for row, name in enumerate(files) if name.startswith("good") and row not in rows]
    problems += [f"never trained on {missing[0]}"] if len(missing) > 3 else []  # the last, incomplete batches
    if not problems:
        bench.forget(name)
    injected = f"{HOSTILE} damaged or hostile files among {IMAGES}"
    return Outcome(injected, "left out, under their own rows", problems, injections=HOSTILE)


def _rows(line: str) -> list[int]:
    return [int(row) for row in line.partition("[")[2].rstrip("]").split(",")]


CELLS = [
    Cell(
        "nan",
        "a loss that is not finite, once there is a checkpoint",
        "exit 70, saved weights finite, equal in every bit in the end",
        20,
        not_finite,
    ),
    Cell("workers", "SIGKILL to a worker process", "the run continues, equal in every bit", 20, worker_killed),
    Cell(
        "images",
        "damaged and hostile files in the folder of images of a run, read by worker processes",
        "exit 0; never trained on; all other images are, under their own rows",
        80,
        images_among,
        HOSTILE,
    ),
]
