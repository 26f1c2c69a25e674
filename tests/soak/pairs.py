"""Two processes, of which one or both are signaled or killed: both end, and the same command finishes the run."""

import random
import signal
from dataclasses import replace
from signal import SIGKILL, SIGTERM, SIGUSR1

from .bench import Bench, complaint
from .cells import Cell, Outcome
from .faults import Fault
from .forks import Reaction

LIMIT = 90.0
"""Seconds within which both processes have to end."""
KILLED = range(1, 256)
LISTS: list[tuple[list[Reaction], range | tuple[int, ...]]] = [
    ([Reaction(0, SIGTERM, rank=1)], (143,)),
    ([Reaction(0, SIGUSR1, rank=1)], (85,)),
    ([Reaction(0, SIGTERM, rank=0)], (143,)),
    ([Reaction(0, SIGTERM, rank=0), Reaction(0, SIGTERM, rank=1)], (143,)),
    ([Reaction(0, SIGUSR1, rank=0), Reaction(0, SIGUSR1, rank=1)], (85,)),
    ([Reaction(0, SIGTERM, rank=1), Reaction(0.02, SIGTERM, rank=1)], (143,)),
    ([Reaction(0, SIGKILL, rank=1)], KILLED),
    ([Reaction(0, SIGKILL, rank=0)], (-9,)),
]
"""The signal of each process, and how the first process may end."""


def struck(bench: Bench, draw: random.Random, number: int) -> Outcome:
    """Signals to a pair, a random time after a random step."""
    reactions, codes = LISTS[number % len(LISTS)]
    step, delay = draw.randrange(6, 40), draw.uniform(0, 0.02)
    later = [replace(reaction, delay=reaction.delay + delay) for reaction in reactions]
    name = f"pairs-{number}"
    bench.whole("pair")
    bench.forget(name)
    done = bench.start(name, "pair", Fault("step", step, action="report"), reactions=later, limit=LIMIT)
    problems = [] if done.sent else ["no signal was sent"]
    problems += [f"hung for {done.seconds:.0f} s"] if done.is_hung else []
    if not problems and done.code not in codes:
        problems = complaint(done, tuple(codes)[:1])
    again = bench.start(name, "pair")
    problems += [f"the same command again: {problem}" for problem in complaint(again, (0,))]
    problems += bench.differs(name, "pair") + bench.leftovers(name) if again.code == 0 else []
    if not problems:
        bench.forget(name)
    signals = ", ".join(f"{signal.Signals(reaction.number).name} to rank {reaction.rank}" for reaction in reactions)
    return Outcome(f"{signals} after step {step}", f"exit {done.code}", problems)


CELLS = [
    Cell(
        "pairs",
        "SIGTERM, SIGUSR1 and SIGKILL to one or both of two processes",
        f"both end within {LIMIT:.0f} s, the first with 143 or 85 for a signal, and the same command finishes the run "
        "equal in every bit",
        2 * len(LISTS),
        struck,
    )
]
