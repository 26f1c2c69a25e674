"""Results as JSON lines, one a case, so that a soak can be stopped and resumed; and as a Markdown table."""

import json
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .cells import Cell, Outcome


class RunRecord:
    """The results of a soak in a file.

    Args:
        path: Lines are appended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cases: dict[tuple[str, int, int], dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            self._take(json.loads(line))

    def _take(self, case: dict[str, Any]) -> None:
        self.cases[case["cell"], case["seed"], case["number"]] = case

    def add(self, cell: Cell, seed: int, number: int, outcome: Outcome, seconds: float, cpu: float) -> dict[str, Any]:
        """Append what happened."""
        case = {"cell": cell.name, "seed": seed, "number": number, "ok": not outcome.problems}
        case |= {"promise": cell.promise, **asdict(outcome), "seconds": round(seconds, 2), "cpu": round(cpu, 2)}
        with self.path.open("a") as file:
            file.write(json.dumps(case) + "\n")
        self._take(case)
        return case

    def has(self, cell: Cell, seed: int, number: int, retry: bool) -> bool:
        """Whether a case is done; failed ones are not, if they are to be tried again."""
        case = self.cases.get((cell.name, seed, number))
        return case is not None and (case["ok"] or not retry)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Cases that did not end as promised."""
        return [case for case in self.cases.values() if not case["ok"]]

    def table(self, cells: list[Cell]) -> str:
        """What was injected, how often, what happened: one row a cell that has results."""
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for case in self.cases.values():
            rows[case["cell"]].append(case)
        lines = [
            "| cell | injected | times | promised | happened | not as promised | CPU s |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(cell, rows[cell.name]) for cell in cells if cell.name in rows]
        return "\n".join(lines)


def _row(cell: Cell, cases: list[dict[str, Any]]) -> str:
    happened: Counter[str] = Counter()
    for case in cases:
        happened.update(case["counts"] or {case["happened"]: case["injections"]})
    found = ", ".join(f"{name} {count}" for name, count in happened.most_common())
    failed = sum(not case["ok"] for case in cases)
    times, seconds = sum(case["injections"] for case in cases), sum(case["cpu"] for case in cases)
    columns = (f"`{cell.name}`", cell.title, times, cell.promise, found, failed, f"{seconds:.0f}")
    return "| " + " | ".join(map(str, columns)) + " |"
