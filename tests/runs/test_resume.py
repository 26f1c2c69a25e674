"""What the files of a run say about a command: start, resume, archived, reject."""

import pytest

from ssl_lightning.errors import UsageError
from ssl_lightning.runs import RunDirectory
from ssl_lightning.runs.resume import decide

INPUTS = {"model.init_args.width": 8}
OTHERS = {"model.init_args.width": 16}


@pytest.fixture
def killed(tmp_path):
    """A run that ended before its first checkpoint."""
    run = RunDirectory(tmp_path, "killed")
    run.open()
    run.write("run.json", {"inputs": INPUTS})
    return run


@pytest.mark.parametrize("policy", ["auto", "restart"])
def test_a_run_without_a_checkpoint_starts_again_where_it_is(killed, policy):
    decision = decide(killed, policy, allow_change=False, inputs=INPUTS)
    assert (decision.action, decision.checkpoint) == ("start", None)
    assert decision.why == f"{killed.path} holds no checkpoint yet; starting again"


def test_a_run_that_must_be_resumed_and_has_no_checkpoint_is_rejected(killed):
    with pytest.raises(UsageError, match=r"found no whole checkpoint in .*killed/checkpoints; .*--resume\.policy auto"):
        decide(killed, "must", allow_change=False, inputs=INPUTS)


def test_a_file_is_what_it_holds_and_not_where_it_lies(tmp_path):
    """Also in runs that an earlier version has begun, which noted the path of a subset."""
    run = RunDirectory(tmp_path, "r")
    run.open()
    noted = {"model.init_args.experts.0": "there/0.ckpt", "experts.0_sha256": "ab", "data.init_args.subset.path": "x"}
    run.write("run.json", {"inputs": noted})
    moved = {"model.init_args.experts.0": "here/0.ckpt", "experts.0_sha256": "ab"}
    assert "other settings" not in decide(run, "auto", allow_change=False, inputs=moved).why
    run.write("done.json", {})
    with pytest.raises(UsageError, match=r"other inputs: experts\.0_sha256 is that of another file; give"):
        decide(run, "auto", allow_change=False, inputs=moved | {"experts.0_sha256": "cd"})


def test_a_run_that_was_rejected_at_its_start_takes_the_command_that_fixes_it(killed):
    """It has trained nothing, so there is nothing to keep from other settings."""
    decision = decide(killed, "auto", allow_change=False, inputs=OTHERS)
    reason = "starting again with other settings: model.init_args.width 8 -> 16"
    assert (decision.action, decision.why) == ("start", f"{killed.path} holds no checkpoint yet; {reason}")


def test_changed_inputs_are_named_whether_or_not_there_is_a_checkpoint(killed):
    decision = decide(killed, "restart", allow_change=False, inputs=OTHERS)
    assert decision.action == "restart"
    assert decision.why == f"inputs of {killed.path} changed (model.init_args.width 8 -> 16)"
    killed.write("done.json", {})
    with pytest.raises(UsageError, match="width 8 -> 16"):
        decide(killed, "auto", allow_change=False, inputs=OTHERS)
