"""Signals, also two in a row: one checkpoint, the right exit code, and the same command finishes the run."""

import random
import signal
from dataclasses import dataclass
from signal import SIGINT, SIGTERM, SIGUSR1, SIGUSR2

from .bench import Bench, complaint
from .cells import Cell, Outcome
from .faults import Fault
from .forks import Done, Reaction

METHOD = "deepcluster"
STEPS = range(6, 40)


@dataclass(frozen=True)
class Signals:
    """Signals, the milliseconds after the first at which each is sent, and the exit code that is promised.

    Attributes:
        sent: Signal and milliseconds.
        code: Exit code.
        pause: Seconds that the step takes at which the first signal arrives.
        at_once: Whether the last signal ends the process within that step, without a checkpoint of it.
    """

    sent: tuple[tuple[int, int], ...]
    code: int
    pause: float = 0.0
    at_once: bool = False


LISTS = [
    Signals(((SIGTERM, 0),), 143),
    *(Signals(((SIGTERM, 0), (SIGTERM, later)), 143) for later in (5, 20, 50, 100)),
    Signals(((SIGTERM, 0), (SIGTERM, 1000), (SIGTERM, 2000)), 143, pause=3),
    Signals(((SIGTERM, 0), (SIGTERM, 5500)), 143, pause=8, at_once=True),
    Signals(((SIGUSR1, 0),), 85),
    Signals(((SIGUSR2, 0), (SIGUSR2, 20)), 85),
    Signals(((SIGUSR1, 0), (SIGTERM, 5)), 85),
    Signals(((SIGUSR1, 0), (SIGTERM, 50)), 85),
    Signals(((SIGTERM, 0), (SIGUSR1, 20)), 143),
    Signals(((SIGINT, 0),), 130),
    Signals(((SIGINT, 0), (SIGINT, 50)), 130),
    Signals(((SIGINT, 0), (SIGINT, 300)), 130, pause=0.5),
    Signals(((SIGINT, 0), (SIGINT, 1000)), 130, pause=5, at_once=True),
]


def sent(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """One list of signals, the first at a random step."""
    signals, step = LISTS[number % len(LISTS)], draw.choice(STEPS)
    name = f"signals-{number}"
    reactions = [Reaction(milliseconds / 1000, which) for which, milliseconds in signals.sent]
    fault = Fault("step", step, action="report", pause=signals.pause)
    bench.forget(name)
    done = bench.start(name, METHOD, fault, reactions=reactions)
    problems = [] if done.sent else ["no signal was sent"]
    problems += complaint(done, (signals.code,)) + _stopped(bench, name, done, signals)
    again = bench.start(name, METHOD)
    problems += [f"the same command again: {problem}" for problem in complaint(again, (0,))]
    problems += bench.differs(name, METHOD) + bench.leftovers(name) if again.code == 0 else []
    if not problems:
        bench.forget(name)
    described = ", ".join(f"{signal.Signals(which).name} after {when} ms" for which, when in signals.sent)
    return Outcome(f"step {step}: {described}", f"exit {done.code}", problems)


def _stopped(bench: Bench, name: str, done: Done, signals: Signals) -> list[str]:
    """The newest whole checkpoint is that of the last step, the process ended soon, and no lock is left."""
    from ssl_lightning.checkpoints.read import newest_valid

    newest, trained = newest_valid(bench.folder / name / "checkpoints"), bench.trained(name)
    saved = int(newest.stem.partition("-")[2]) if newest else 0
    oldest = 4 if signals.at_once else 1
    problems = [] if trained - saved <= oldest else [f"newest whole checkpoint of step {saved}, trained to {trained}"]
    last = signals.sent[-1][1] / 1000
    soon = last + 2 if signals.at_once else max(last, signals.pause) + 10
    problems += [] if done.seconds <= soon else [f"ended {done.seconds:.1f} s after the first signal"]
    return problems


CELLS = [
    Cell(
        "signals",
        "SIGTERM, SIGUSR1, SIGUSR2, SIGINT, once, twice within 5 to 100 ms, mixed, and late",
        "a checkpoint at most one step old (four, where a late signal ends the run at once), exit code 143, 85 or 130, "
        "run equal in every bit after the same command",
        len(LISTS),
        sent,
    )
]
