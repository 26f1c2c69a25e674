"""What Lightning times unasked: nothing, unless the command line asks."""

import pytest
from lightning.pytorch.profilers import Profiler, SimpleProfiler

from ssl_lightning.cli.main import CommandLine
from ssl_lightning.cli.quiet import NoProfiler

TINY = ["--data.samples", "64", "--data.batch_size", "32", "--trainer.max_steps", "1"]


@pytest.mark.parametrize(("asked", "found"), [([], NoProfiler), (["--trainer.profiler", "simple"], SimpleProfiler)])
def test_a_run_is_timed_only_when_the_command_line_asks(
    tmp_path, capsys, asked: list[str], found: type[Profiler]
) -> None:
    configs = ["--config", "configs/simclr.yaml", "--config", "configs/data/synthetic.yaml"]
    configs += ["--config", "configs/scale/cpu.yaml"]
    command = CommandLine(["fit", *configs, *TINY, "--run.dir", str(tmp_path), *asked], quiet=True)
    assert type(command.trainer.profiler) is found  # type: ignore[attr-defined]  # set by a connector
    assert command.trainer.global_step == 1


def test_no_profiler_brackets_a_hook_with_nothing() -> None:
    profiler = NoProfiler()
    with profiler.profile("first"), profiler.profile("within it"):
        assert profiler.profile("again") is profiler.profile("and again")
    assert profiler.summary() == ""
