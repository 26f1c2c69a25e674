"""A disk that fails: the checkpoints before are kept, and the run goes on, or stops with one line and can be resumed."""

import errno
import random

from .bench import Bench, complaint
from .cells import Cell, Outcome
from .faults import STORAGE, Fault

METHOD = "deepcluster"
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS, "EDQUOT": errno.EDQUOT}
POINTS = {
    "checkpoint bytes": r"write .*\.step-\d+\.ckpt\.tmp",
    "checkpoint fsync": r"fsync .*\.step-\d+\.ckpt\.tmp",
    "checkpoint rename": r"replace .*/step-\d+\.ckpt$",
    "sidecar bytes": r"write .*\.step-\d+\.json\.tmp",
    "link": r"(symlink|replace) .*last\.ckpt",
    "metrics.csv": r"write .*metrics\.csv",
    "done.json": r"(open|write|fsync|replace) .*done\.json",
}
CASES = [(point, name) for point in POINTS for name in ERRORS]


def fails(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """One error at one point of writing, once or from then on."""
    (point, error), lasting = CASES[number % len(CASES)], draw.random() < 0.5
    first = {"checkpoint bytes": 40, "link": 4, "done.json": 1}.get(point, 3)
    fault = Fault(STORAGE, draw.randrange(first, 3 * first + 1), POINTS[point], "fail", ERRORS[error], lasting)
    if point == "done.json":
        fault = Fault(STORAGE, draw.randrange(1, 5), POINTS[point], "fail", ERRORS[error], lasting)
    name = f"disk-{number}"
    done = bench.start(name, METHOD, fault)
    problems = complaint(done, (0, 74)) + _kept(bench, name)
    if done.code != 0:
        again = bench.start(name, METHOD)
        problems += [f"the same command again: {problem}" for problem in complaint(again, (0,))]
    problems += bench.differs(name, METHOD) if (bench.folder / name / "done.json").exists() else ["not finished"]
    problems += bench.leftovers(name)
    if not problems:
        bench.forget(name)
    often = "from then on" if lasting else "once"
    what = "went on, equal" if done.code == 0 else f"exit {done.code}, then equal"
    return Outcome(f"{error} at {point}, operation {fault.number}, {often}", what, problems)


def _kept(bench: Bench, name: str) -> list[str]:
    """Every point comes after the first checkpoint, so there is a whole one, and the link names one."""
    from ssl_lightning.checkpoints.read import is_valid, newest_valid

    folder = bench.folder / name / "checkpoints"
    problems = [] if newest_valid(folder) else ["no whole checkpoint is left"]
    link = folder / "last.ckpt"
    return problems if not link.is_symlink() or is_valid(link) else [*problems, "last.ckpt names no whole checkpoint"]


CELLS = [
    Cell(
        "disk",
        "ENOSPC, EIO, EROFS and EDQUOT at 7 points of writing, once or lasting",
        "the checkpoint before is whole, the run goes on or ends with 74 and one line, equal in every bit in the end",
        len(CASES),
        fails,
    )
]
