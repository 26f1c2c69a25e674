"""Kills at any moment: the same command finishes the run, which then equals one that was never interrupted."""

import random

from .bench import CLUSTERING, METHODS, Bench, complaint
from .cells import Cell, Outcome
from .faults import STORAGE, Fault
from .forks import Reaction

STEP = 0.02
"""Seconds that a step takes, about: the longest random delay."""
KILLS_A_RUN = 8
OPERATIONS = {
    r"write .*/\.?step-\d+\.ckpt": 400,  # about 190 to a checkpoint
    r"(open|fsync|replace|unlink|symlink) .*/checkpoints|write .*\.json\.": 60,  # about 17 to a checkpoint
    r"(run\.json|config\.yaml|metrics\.csv|done\.json)": 60,
}
"""Kinds of operations on files of a run, and how many there are before a few checkpoints have been written."""
PHASES = ("features", "kmeans", "publish", "clustering")


def at_a_step(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """SIGKILL a random time after a random step; the methods take turns."""
    method = METHODS[number % len(METHODS)]
    step, delay = draw.randrange(1, bench.trained(bench.whole(method))), draw.uniform(0, STEP)
    fault = Fault("step", step, action="report")
    where = f"{1000 * delay:.0f} ms after step {step}"
    return _killed(bench, f"steps-{number}", method, fault, (Reaction(delay),), where)


def in_a_write(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """SIGKILL before or within one of the operations that make a checkpoint, several times in one run."""
    method = METHODS[number % len(METHODS)]
    name, problems, places = f"writes-{number}", [], []
    bench.forget(name)
    for _ in range(3 * KILLS_A_RUN):
        if problems or len(places) == KILLS_A_RUN:
            break
        pattern, most = draw.choices(list(OPERATIONS.items()), (2, 2, 1))[0]
        operation = draw.randrange(1, most)
        done = bench.start(name, method, Fault(STORAGE, operation, pattern))
        if done.code == -9:
            places.append(f"{operation} of {pattern}")
            problems += _torn(bench, name)
        elif not (problems := complaint(done, (0,)) + bench.differs(name, method)):
            bench.forget(name)  # it finished before that operation: the next one begins anew
    outcome = _finished(bench, name, method, problems)
    outcome.injected = f"{method}: killed at operation {', '.join(places)}"
    outcome.injections, outcome.counts = len(places), {outcome.happened: len(places)}
    return outcome


def in_a_clustering(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """SIGKILL at the start of, or a random time into, one part of a clustering."""
    method = CLUSTERING[number % len(CLUSTERING)]
    phase = draw.choice(PHASES if method == "deepcluster" else ("kmeans", "clustering"))
    at = 1 if method == "predict" else draw.randrange(1, 4)
    delay = draw.choice((0.0, draw.uniform(0, 0.03)))
    action, reactions = ("kill", ()) if delay == 0 else ("report", (Reaction(delay),))
    fault = Fault(phase, at, action=action)
    return _killed(bench, f"clusterings-{number}", method, fault, reactions, f"{1000 * delay:.0f} ms into {phase} {at}")


def _killed(bench: Bench, name: str, method: str, fault: Fault, reactions, where: str) -> Outcome:
    bench.forget(name)
    done = bench.start(name, method, fault, reactions=reactions)
    late = done.reported and not done.sent  # the run was over before the signal came
    problems = [] if late or done.code == -9 else complaint(done, (-9,))
    outcome = _finished(bench, name, method, problems)
    outcome.injected = f"{method}: killed {where}"
    if late:
        outcome.happened, outcome.injections = "over before the kill", 0
    return outcome


def _finished(bench: Bench, name: str, method: str, problems: list[str]) -> Outcome:
    """Give the same command again, and compare."""
    done = bench.start(name, method)
    problems = problems + complaint(done, (0,))
    if done.code == 0:
        problems += bench.differs(name, method) + bench.leftovers(name)
    if not problems:
        bench.forget(name)
    return Outcome("", "equal" if not problems else "failed", problems)


def _torn(bench: Bench, name: str) -> list[str]:
    """A link to a checkpoint that is not whole, or a checkpoint with a sidecar that is not its own."""
    from ssl_lightning.checkpoints.read import is_valid, sidecar_path

    folder = bench.folder / name / "checkpoints"
    counting = [path for path in folder.glob("step-*.ckpt") if sidecar_path(path).exists()]
    counting += [folder / "last.ckpt"] if (folder / "last.ckpt").is_symlink() else []
    return [f"torn: {path.name}" for path in counting if not is_valid(path)]


CELLS = [
    Cell(
        "steps",
        f"SIGKILL at a random moment of training, {len(METHODS)} methods and stages",
        "resumed run equal to an uninterrupted one in every bit",
        100,
        at_a_step,
    ),
    Cell(
        "writes",
        "SIGKILL before or within an operation on a checkpoint, sidecar or link; TMPDIR on another filesystem",
        "nothing torn, no temporary file left after the restart, run equal in every bit",
        200,
        in_a_write,
        KILLS_A_RUN,
    ),
    Cell(
        "clusterings",
        "SIGKILL while features are computed, clustered, assigned or published, and in the clustering stage",
        "labels and run, or stage file, equal in every bit",
        40,
        in_a_clustering,
    ),
]
