"""budget: what runs have multiplied and added in training, and how long the first must train for as much."""

import math
from dataclasses import dataclass
from pathlib import Path

from ssl_lightning.errors import DataError
from ssl_lightning.runs.metrics import read_rows


@dataclass(frozen=True)
class TrainingCost:
    """Of one run.

    Attributes:
        epochs: Those that it began, the last one among them.
        steps: Of the optimizer.
        operations: Multiplications and additions.
    """

    epochs: int
    steps: int
    operations: float


def main(runs: list[str]) -> None:
    """Show the operations of runs in training, and the epochs in which the first run would spend those of all.

    Args:
        runs: Folders of runs, such as runs/*-base runs/*-expert-* runs/*-distill.
    """
    cost = [read_cost(Path(run)) for run in runs]
    whole, first = sum(one.operations for one in cost), cost[0]
    width = max(map(len, runs))
    print(f"{'run':<{width}}  epochs   steps  operations   share")
    for run, one in zip(runs, cost, strict=True):
        print(
            f"{run:<{width}}  {one.epochs:>6}  {one.steps:>6}  {one.operations:>10.3g}  {one.operations / whole:>6.1%}"
        )
    if len(runs) > 1:
        epochs = math.ceil(whole / (first.operations / first.epochs))
        print(f"all: {whole:.3g}, for which {runs[0]} would train {epochs} epochs: --trainer.max_epochs {epochs}")


def read_cost(run: Path) -> TrainingCost:
    """What its table says last; steps after the last row that counts cost what those before it do.

    Raises:
        DataError: If there is no table, or no operations in it.
    """
    rows = read_rows(run / "metrics.csv")
    counted = [row for row in rows if row.get("train/operations") and row.get("epoch") and int(row["step"])]
    counted = [row for row in counted if 0 < float(row["train/operations"]) < math.inf]
    if not counted:
        raise DataError(
            f"found no train/operations in {run / 'metrics.csv'}; expected a run of fit that is not compiled and has "
            "taken a step"
        )
    last, steps = counted[-1], max(int(row["step"]) for row in rows)
    return TrainingCost(int(last["epoch"]) + 1, steps, float(last["train/operations"]) * steps / int(last["step"]))
