"""budget: FLOPs of runs, and the number of epochs in which the first run would spend those of all."""

import math
from dataclasses import dataclass
from pathlib import Path

from ssl_lightning.errors import DataError
from ssl_lightning.runs.metrics import read_rows


@dataclass(frozen=True)
class TrainingCost:
    """The cost of one run.

    Attributes:
        epochs: Number of started epochs.
        steps: Optimizer steps.
        flops: FLOPs.
    """

    epochs: int
    steps: int
    flops: float


def main(runs: list[str]) -> None:
    """Print the FLOPs of runs, and the number of epochs in which the first run would spend those of all.

    Args:
        runs: Folders of runs, such as runs/*-base runs/*-expert-* runs/*-distill.
    """
    cost = _costs(runs)
    whole, (name, first) = sum(one.flops for one in cost.values()), next(iter(cost.items()))
    width = max(map(len, cost))
    print(f"{'run':<{width}}  epochs   steps       FLOPs   share")
    for run, one in cost.items():
        print(f"{run:<{width}}  {one.epochs:>6}  {one.steps:>6}  {one.flops:>10.3g}  {one.flops / whole:>6.1%}")
    if len(cost) > 1:
        epochs = math.ceil(whole / (first.flops / first.epochs))
        print(f"all: {whole:.3g}, for which {name} would train {epochs} epochs: --trainer.max_epochs {epochs}")


def _costs(runs: list[str]) -> dict[str, TrainingCost]:
    """The cost of each folder that has one, with a line for others, such as those of validate and predict in `runs/*`.

    Raises:
        DataError: None has one.
    """
    found, errors = {}, []
    for run in runs:
        try:
            found[run] = read_cost(Path(run))
        except DataError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    for error in errors:
        print(f"left out: {error}")
    return found


def read_cost(run: Path) -> TrainingCost:
    """The cost from the last row of the metrics table; later steps are extrapolated.

    Raises:
        DataError: If there is no table, or it has no FLOPs.
    """
    rows = read_rows(run / "metrics.csv")
    counted = [row for row in rows if row.get("train/flops") and row.get("epoch") and int(row["step"])]
    counted = [row for row in counted if 0 < float(row["train/flops"]) < math.inf]
    if not counted:
        raise DataError(
            f"found no train/flops in {run / 'metrics.csv'}; expected a run of fit that is not compiled and has "
            "taken a step"
        )
    last, steps = counted[-1], max(int(row["step"]) for row in rows)
    # the row of the last step has the number of finished epochs, those before it the number of their epoch, from 0
    started = [int(row["epoch"]) + 1 for row in counted if int(row["step"]) < steps]
    epochs = max(1, *started[-1:], int(last["epoch"]))
    return TrainingCost(epochs, steps, float(last["train/flops"]) * steps / int(last["step"]))
