"""Addresses in descriptions: nothing outside this machine is fetched because an untrusted file names it."""

import os
import re
import sys
from typing import Any

from ssl_lightning.arguments import values_in
from ssl_lightning.checkpoints.plain import strings_in
from ssl_lightning.errors import DataError

VARIABLE = "SSL_LIGHTNING_REMOTE"
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(://|::)|(wandb|hf-hub|hf_hub|hf|s3|gs|gcs|az|abfs|http|https|ftp):")


def is_address(value: str) -> bool:
    """Whether a value refers to something outside this machine."""
    return _ADDRESS.match(value.strip()) is not None


def reject_addresses(described: Any) -> None:
    """Reject a description with an address that the user has not given too.

    The user gives it by an option of the command, or by a prefix in the environment variable `SSL_LIGHTNING_REMOTE`.

    Args:
        described: Plain values from a checkpoint, a stage file, a manifest or the `config.yaml` of a run.

    Raises:
        DataError: With the first such address.
    """
    for value in strings_in(described):
        if is_address(value) and not _is_given(value):
            raise DataError(
                f"found the address {value!r} in a description, which is not followed unless you name it: give it as "
                f"an option, or put a prefix of it into the environment variable {VARIABLE}"
            )


def _is_given(address: str) -> bool:
    prefixes = [prefix.strip() for prefix in os.environ.get(VARIABLE, "").split(",")]
    return address in values_in(sys.argv[1:]) or any(prefix and address.startswith(prefix) for prefix in prefixes)
