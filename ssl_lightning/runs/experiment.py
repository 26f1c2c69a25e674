"""The experiment that a run belongs to, from its name: the seeds and stages of one experiment are one group."""

import re

_STAGE = re.compile(r"(?P<group>.+-k\d+)(?:-s\d+)?-(?!s\d+$)(?P<stage>[a-z].*)")
_SEED = re.compile(r"(?P<group>.+)-s\d+(?:-(?P<subcommand>[a-z].*))?")


def group_and_job(run_name: str, method: str) -> tuple[str, str]:
    """The default group and job type of a run.

    A name of the form `<pipeline>-<data>-k<K>[-s<seed>]-<stage>` gives the group `<pipeline>-<data>-k<K>` and the
    stage;
    `<config>-<data>-s<seed>` gives `<config>-<data>` and the method. Any other name is its own group.

    Args:
        run_name: Name of the run.
        method: The job type of a name without a stage.
    """
    if match := _STAGE.fullmatch(run_name):
        return match["group"], match["stage"]
    if match := _SEED.fullmatch(run_name):
        return match["group"], match["subcommand"] or method
    return run_name, method
