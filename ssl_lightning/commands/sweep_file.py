"""Trials of a sweep file: the format of Weights & Biases, grid and random search, as options of `fit`."""

import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.runs.directory import MOST_CHARACTERS
from ssl_lightning.safe_yaml import read_yaml

SEED = "seed_everything"
ARGS, ENV, INTERPRETER, PROGRAM = "${args}", "${env}", "${interpreter}", "${program}"
"""Macros of Weights & Biases in a command: the options of a trial, `env`, `python`, and the key `program`."""
MOST_TRIALS = 10_000
KEYS = {
    *("program", "command", "method", "metric", "parameters", "early_terminate", "run_cap", "name", "description"),
    *("project", "entity"),
}
"""Keys of a sweep file."""
GRID, RANDOM = "grid", "random"
_WORDS = (["ssl-lightning"], ["python", "-m", "ssl_lightning"])
_OTHER_SIGNS = re.compile(r"[^A-Za-z0-9._]+")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        name: Name of its run.
        values: Options and their values.
        arguments: Of `ssl-lightning fit`, without the name of the run.
    """

    name: str
    values: dict[str, Any]
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        trials: In the order of the file.
        metric: The metric to compare trials by; empty where the file names none.
        is_larger_better: Whether its goal is to maximize.
        ends_early: Whether the file has `early_terminate`, which `wandb agent` alone applies.
    """

    trials: list[Trial]
    metric: str
    is_larger_better: bool
    ends_early: bool


def read_sweep(path: Path, count: int | None = None, seed: int = 0) -> Sweep:
    """The trials of a sweep file.

    Args:
        path: YAML in the format of Weights & Biases.
        count: Number of trials of a random search; by default `run_cap` of the file.
        seed: Seed of a random search.

    Raises:
        DataError: The file cannot be read.
        UsageError: It is no sweep of `ssl-lightning fit`, or has a method or distribution that is not supported.
    """
    table = read_yaml(path)
    if not isinstance(table, dict):
        raise DataError(f"found {path}, which is no table; expected a sweep file with command, method and parameters")
    if unknown := sorted(str(key) for key in table if key not in KEYS):
        raise UsageError(f"found {unknown[0]} in {path}; expected keys of a sweep file: {', '.join(sorted(KEYS))}")
    parameters = table.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UsageError(f"found {path} without parameters; expected options of fit, each with values")
    command = _command(table, path)
    metric = table.get("metric") or {}
    if not isinstance(metric, dict):
        raise UsageError(f"found metric={metric} in {path}; expected a table such as {{name: eval/knn/top1}}")
    points = _points(table.get("method"), parameters, count or table.get("run_cap"), seed, path)
    names = _names(points)
    trials = [
        Trial(name, point, tuple(_with_options(command, point))) for name, point in zip(names, points, strict=True)
    ]
    larger = str(metric.get("goal", "minimize")) == "maximize"
    return Sweep(trials, str(metric.get("name", "")), larger, bool(table.get("early_terminate")))


def _command(table: dict[str, Any], path: Path) -> list[str]:
    """The words after `ssl-lightning fit`, with the macro of the options."""
    words = table.get("command")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"found {path} without a command; expected [ssl-lightning, fit, ..., {ARGS}]")
    replaced = {INTERPRETER: "python", PROGRAM: str(table.get("program", ""))}
    words = [str(replaced.get(word, word)) for word in words if word not in (ENV, "/usr/bin/env")]
    start = next((start for start in _WORDS if words[: len(start)] == start), None)
    rest = words[len(start) :] if start else []
    if not start or rest[:1] != ["fit"] or rest.count(ARGS) != 1:
        raise UsageError(f"found command={words} in {path}; expected [ssl-lightning, fit, ..., {ARGS}]")
    if other := [word for word in rest if word.startswith("${") and word != ARGS]:
        raise UsageError(f"found {other[0]} in the command of {path}; expected no macro but {ARGS}")
    if any(re.match(r"--run\.(name|dir)(=|$)", word) for word in rest):
        raise UsageError(
            f"found --run.name or --run.dir in the command of {path}; each trial gets its own: leave it out"
        )
    return rest[1:]


def _with_options(command: list[str], point: Mapping[str, Any]) -> list[str]:
    options = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in point.items()]
    place = command.index(ARGS)
    return [*command[:place], *options, *command[place + 1 :]]


def _points(method: Any, parameters: dict[str, Any], count: Any, seed: int, path: Path) -> list[dict[str, Any]]:
    if method not in (GRID, RANDOM):
        raise UsageError(
            f"found method={method} in {path}; expected {GRID} or {RANDOM}: others choose trials by earlier results, "
            "which `wandb sweep` and `wandb agent` do"
        )
    for name, described in parameters.items():
        if not isinstance(described, dict) or "parameters" in described:
            raise UsageError(
                f"found {name}={described} in {path}; expected an option of fit with its full name, such as "
                "model.num_clusters: {values: [10, 30]}"
            )
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise UsageError(f"found {count} trials; expected a whole number of at least 1")
    if method == GRID:
        lists = [_listed(name, described, path) for name, described in parameters.items()]
        number = math.prod(map(len, lists))
        if number > MOST_TRIALS:
            raise UsageError(f"found {number} trials in {path}; expected at most {MOST_TRIALS}: leave values out")
        points = [dict(zip(parameters, values, strict=True)) for values in itertools.product(*lists)]
        return points[:count]
    if count is None:
        raise UsageError(f"found a random search in {path} without a number of trials; give run_cap there, or --count")
    if count > MOST_TRIALS:
        raise UsageError(f"found {count} trials; expected at most {MOST_TRIALS}")
    source = random.Random(seed)
    samplers = {name: _sampler(name, described, path) for name, described in parameters.items()}
    return [{name: sampler(source) for name, sampler in samplers.items()} for _ in range(count)]


def _listed(name: str, described: dict[str, Any], path: Path) -> list[Any]:
    """All values of a parameter of a grid."""
    if "value" in described:
        return [described["value"]]
    values = described.get("values")
    if not isinstance(values, list) or not values:
        raise UsageError(f"found {name}={described} in {path}; a grid needs values: [...], or value")
    return values


def _sampler(name: str, described: dict[str, Any], path: Path) -> Callable[[random.Random], Any]:
    """A function that samples a value of a parameter, by the distributions of Weights & Biases."""
    if "value" in described or "values" in described:
        values, weights = _listed(name, described, path), described.get("probabilities")
        if weights is not None and (not isinstance(weights, list) or len(weights) != len(values)):
            raise UsageError(f"found probabilities={weights} of {name} in {path}; expected one for each value")
        return lambda source: source.choices(values, weights)[0]
    low: Any = described.get("min")
    high: Any = described.get("max")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = str(described.get("distribution", "int_uniform" if whole else "uniform"))
    if kind in ("normal", "log_normal", "q_normal") and _are_numbers(described.get("mu", 0), described.get("sigma", 1)):
        mean, std = float(described.get("mu", 0)), float(described.get("sigma", 1))
        return _rounded(kind, described, lambda source: source.gauss(mean, std))
    if not _are_numbers(low, high) or not low < high:
        raise UsageError(f"found {name}={described} in {path}; expected values: [...], or min below max")
    if kind == "int_uniform":
        return lambda source: source.randint(math.ceil(low), math.floor(high))
    if kind in ("uniform", "q_uniform", "log_uniform", "q_log_uniform"):
        return _rounded(kind, described, lambda source: source.uniform(low, high))
    if kind in ("log_uniform_values", "q_log_uniform_values") and low > 0:
        ends = math.log(low), math.log(high)
        return _rounded(kind, described, lambda source: math.exp(source.uniform(*ends)))
    raise UsageError(
        f"found distribution={kind} of {name} in {path}; expected uniform, int_uniform, log_uniform_values, normal or "
        "categorical"
    )


def _rounded(
    kind: str, described: dict[str, Any], sample: Callable[[random.Random], float]
) -> Callable[[random.Random], float]:
    """A sampler of exponents for log_uniform and log_normal, and of multiples of q for the names with q."""
    grows = kind.removeprefix("q_") in ("log_uniform", "log_normal")
    step = float(described.get("q", 1)) if kind.startswith("q_") else 0.0

    def rounded(source: random.Random) -> float:
        value = math.exp(sample(source)) if grows else sample(source)
        return round(value / step) * step if step else float(f"{value:.6g}")

    return rounded


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _names(points: list[dict[str, Any]]) -> list[str]:
    """A name for each trial of the values that differ, the seed last; too long or equal ones end in a digest."""
    first = points[0]
    varied = [name for name in first if any(point[name] != first[name] for point in points)]
    varied = [name for name in varied if name != SEED] + [name for name in varied if name == SEED]
    names = ["-".join(_part(name, point[name]) for name in varied) or "trial" for point in points]
    return [
        name if len(name) <= MOST_CHARACTERS and names.count(name) == 1 else _with_digest(name, point)
        for name, point in zip(names, points, strict=True)
    ]


def _part(name: str, value: Any) -> str:
    text = _OTHER_SIGNS.sub("_", str(value)).strip("_")
    return f"s{text}" if name == SEED else f"{name.rpartition('.')[2]}{text}"


def _with_digest(name: str, point: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(point, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{name[: MOST_CHARACTERS - len(digest) - 1]}-{digest}"
