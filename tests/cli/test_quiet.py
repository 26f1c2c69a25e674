"""Lightning's profiler is off unless the command line requests it."""

import pytest
from lightning.pytorch.profilers import Profiler, SimpleProfiler

from ssl_lightning.cli.main import CommandLine
from ssl_lightning.cli.quiet import NoProfiler

TINY = ["--data.samples", "64", "--data.batch_size", "32", "--trainer.max_steps", "1"]


@pytest.mark.parametrize(("requested", "found"), [([], NoProfiler), (["--trainer.profiler", "simple"], SimpleProfiler)])
def test_a_run_is_timed_only_on_request(tmp_path, capsys, requested: list[str], found: type[Profiler]) -> None:
    configs = ["--config", "configs/simclr.yaml", "--config", "configs/data/synthetic.yaml"]
    configs += ["--config", "configs/scale/cpu.yaml"]
    command = CommandLine(["fit", *configs, *TINY, "--run.dir", str(tmp_path), *requested], quiet=True)
    assert type(command.trainer.profiler) is found  # type: ignore[attr-defined]  # set by a connector
    assert command.trainer.global_step == 1


def test_no_profiler_brackets_a_hook_with_nothing() -> None:
    profiler = NoProfiler()
    with profiler.profile("first"), profiler.profile("within it"):
        assert profiler.profile("again") is profiler.profile("and again")
    assert profiler.summary() == ""
