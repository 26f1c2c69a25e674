"""`make soak`: inject faults for a given time, write what happened, exit 1 if anything was not as promised."""

import argparse
import random
import resource
import sys
import time
import traceback
from pathlib import Path

from .forks import Forks, import_everything


def main() -> int:
    """Carry out the cases that are not done yet; the exit code."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    import_everything()
    from .bench import Bench
    from .catalog import CELLS
    from .record import RunRecord

    names = [cell.name for cell in CELLS] if options.faults == "all" else options.faults.split(",")
    unknown = sorted(set(names) - {cell.name for cell in CELLS})
    if unknown:
        sys.stderr.write(f"found --faults {unknown[0]}; expected some of {', '.join(cell.name for cell in CELLS)}\n")
        return 2
    cells = [cell for cell in CELLS if cell.name in names]
    bench = Bench(options.out.resolve(), Forks(options.out.resolve() / "output.log"))
    record = RunRecord(options.out / "results.jsonl")
    rounds = 1 if options.minutes is None else 10**6
    for seed in range(options.seed, options.seed + rounds):
        for cell, number in _plan(cells, options):
            if options.minutes is not None and time.monotonic() > BEGAN + 60 * options.minutes:
                return _report(record, cells, options.out)
            if not record.has(cell, seed, number, options.retry):
                _carry_out(cell, bench, record, seed, number)
    return _report(record, cells, options.out)


BEGAN = time.monotonic()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    parser.add_argument("--faults", default="all", help="kinds of fault, by commas; all by default")
    parser.add_argument("--count", type=float, default=1.0, help="share of the full counts; 0.01 is a first try")
    parser.add_argument("--minutes", type=float, help="repeat with other seeds until this time is over")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument("--only", type=int, help="the case of this number alone, to see one again")
    parser.add_argument("--retry", action="store_true", help="do cases again that failed in an earlier call")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="runs and results; a second call resumes")
    return parser.parse_args()


def _plan(cells, options):
    for cell in cells:
        numbers = range(cell.cases(options.count)) if options.only is None else [options.only]
        yield from ((cell, number) for number in numbers)


def _carry_out(cell, bench, record, seed: int, number: int) -> None:
    from .cells import Outcome

    start, computed = time.monotonic(), _computed()
    try:
        outcome = cell.case(bench, random.Random(f"{seed} {cell.name} {number}"), number)
    except Exception:  # of the case itself; the others continue
        outcome = Outcome(cell.title, "error in the case", [traceback.format_exc(limit=-3)])
    case = record.add(cell, seed, number, outcome, time.monotonic() - start, _computed() - computed)
    verdict = "ok" if case["ok"] else f"NOT AS PROMISED: {'; '.join(outcome.problems)[:600]}"
    sys.stdout.write(f"{cell.name} {number}: {outcome.injected}: {outcome.happened} ({case['seconds']} s) {verdict}\n")
    sys.stdout.flush()


def _computed() -> float:
    """Seconds that this process and its children have computed."""
    used = [resource.getrusage(process) for process in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _report(record, cells, out: Path) -> int:
    from .catalog import CELLS

    table = record.table(cells)
    (out / "results.md").write_text(record.table(CELLS) + "\n")  # of earlier calls too
    failed = [case for case in record.failed if case["cell"] in {cell.name for cell in cells}]
    sys.stdout.write(f"\n{table}\n\n{len(failed)} cases were not as promised\n")
    for case in failed[:20]:
        again = f"--faults {case['cell']} --seed {case['seed']} --only {case['number']} --retry"
        sys.stdout.write(f"  {again}: {' '.join(case['problems'][0].split())[:300]}\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
