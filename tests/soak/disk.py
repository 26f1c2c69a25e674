"""A disk that fails: earlier checkpoints are kept, the run continues, or stops with one line and can be resumed."""

import errno
import random

from .bench import Bench, complaint
from .cells import Cell, Outcome
from .faults import STORAGE, Fault

METHOD = "deepcluster"
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS, "EDQUOT": errno.EDQUOT}
SAVED = (8, 11, 15, 19, 22, 26, 30, 33, 37, 41, 44)
"""Steps of all checkpoints but the first."""
POINTS = {
    "checkpoint bytes": (r"write .*/\.step-({})\.ckpt\.", 150),
    "checkpoint fsync": (r"fsync .*/\.step-({})\.ckpt\.", 1),
    "checkpoint rename": (r"replace .*/step-({})\.ckpt$", 1),
    "sidecar": (r"(open|write|fsync|replace) .*step-({})\.json", 4),
    "link": (r"(symlink|replace) .*last\.ckpt", 8),
    "metrics.csv": (r"(open|write|fsync|replace) .*metrics\.csv", 80),
    "done.json": (r"(open|write|fsync|replace) .*done\.json", 4),
}
"""Operations, with the steps of the checkpoints that fail in place of {}, and how many of them there are."""
COUNTERS = ("/loops/fit_loop/epoch_progress", "/epoch")
"""A last checkpoint that fails at the end of the last epoch is written again after it, when that epoch is completed."""
CASES = [(point, name) for point in POINTS for name in ERRORS]


def fails(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """One error at one point of writing, once or from then on."""
    (point, error), lasting = CASES[number % len(CASES)], draw.random() < 0.5
    pattern, most = POINTS[point]
    first = draw.randrange(len(SAVED))
    pattern = pattern.format("|".join(map(str, SAVED[first:] if lasting else SAVED[first : first + 1])))
    earliest = {"link": 3, "metrics.csv": 40}.get(point, 1)  # after the first checkpoint
    fault = Fault(STORAGE, draw.randrange(earliest, most + 1), pattern, "fail", ERRORS[error], lasting)
    name = f"disk-{number}"
    bench.forget(name)
    done = bench.start(name, METHOD, fault)
    problems = [] if done.reported else ["the run did not come to that operation"]
    problems += complaint(done, (0, 74)) + _kept(bench, name)
    if done.code != 0:
        again = bench.start(name, METHOD)
        problems += [f"the same command again: {problem}" for problem in complaint(again, (0,))]
    problems += bench.differs(name, METHOD, COUNTERS)
    problems += bench.leftovers(name)
    if not problems:
        bench.forget(name)
    often = "from then on" if lasting else "once"
    what = "continued, equal" if done.code == 0 else f"exit {done.code}, then equal"
    return Outcome(f"{error} at {point}, operation {fault.number} of {pattern}, {often}", what, problems)


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
        "the checkpoint before is whole, the run continues or ends with 74 and one line, equal in every bit in the end",
        len(CASES),
        fails,
    )
]
