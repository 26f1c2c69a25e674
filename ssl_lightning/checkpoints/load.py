"""load_model: restore the method of a checkpoint; data modules from their descriptions."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch.nn.modules import module as torch_module

from ssl_lightning.checkpoints.addresses import reject_addresses
from ssl_lightning.checkpoints.allowlist import explain_rejection, restrict_imports
from ssl_lightning.checkpoints.kinds import OURS, Kind
from ssl_lightning.checkpoints.places import check_arguments, leave_out_default_functions
from ssl_lightning.checkpoints.plain import reject_unbounded
from ssl_lightning.checkpoints.read import CorruptCheckpointError, read_checkpoint
from ssl_lightning.checkpoints.renamed import renamed_names
from ssl_lightning.errors import DataError
from ssl_lightning.safe_yaml import read_yaml

MOST_PARTS, PARTS_PER_TENSOR = 10_000, 10
"""Largest number of modules, parameters and buffers of a network. Admitted backbones have up to some thousand;
more are allowed if the file holds more tensors."""
METHOD, DATA = Kind(f"{OURS}.methods.method.Method"), Kind(f"{OURS}.data.module.ImageModule")


def load_model(path: str | Path) -> Any:
    """Load the method of a checkpoint in eval mode on the CPU, with its weights and per-sample state.

    The class and the constructor arguments are read from the checkpoint under the import policy (SECURITY.md): a method
    of this package or of one in `SSL_LIGHTNING_PLUGINS`, with arguments of the declared types. Nothing is downloaded.

    Args:
        path: A `.ckpt` file of a run, for example `runs/<name>/checkpoints/last.ckpt`.

    Raises:
        DataError: If the file is missing or damaged, or names a class that is not admitted.
    """
    checkpoint = read_checkpoint(path)
    described = checkpoint.get("hyper_parameters", {})
    if not isinstance(described, dict) or "class_path" not in described:
        raise DataError(f"found {path} without a class_path in hyper_parameters; expected a checkpoint of this package")
    _reject_larger(described, checkpoint["state_dict"], path)
    method = _build(METHOD, described, path)
    try:
        method.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        first = [line.strip() for line in str(error).splitlines() if line.strip()][:2]
        raise CorruptCheckpointError(f"found weights in {path} that do not fit its description: {first}") from error
    method.data_fingerprint = str((checkpoint.get("config") or {}).get("data_fingerprint", ""))  # type: ignore[assignment]
    return method.eval()


def data_section(path: str | Path, suggestion: str) -> dict[str, Any]:
    """The data section of a configuration, a table of `class_path` and `init_args`.

    Args:
        path: A YAML file, such as a run's `config.yaml` or one of configs/data.
        suggestion: What to do if there is none, for the error.

    Raises:
        DataError: If the file is missing or unreadable, or has no data section.
    """
    try:
        return dict(read_yaml(path)["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"found no {path} with a data section ({error}); {suggestion}") from error


def described_data(metadata: dict[str, str], path: str | Path, suggestion: str) -> Any:
    """The data module of a stage file, from the description in its metadata.

    Args:
        metadata: Metadata of the file.
        path: The file, for the error.
        suggestion: What to do if there is no description, for the error.

    Raises:
        DataError: If there is none, or it names a class that is not admitted.
    """
    try:
        described = json.loads(metadata["data_config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise DataError(f"found no description of the data in {path}; {suggestion}") from error
    return build_data(described, path)


def build_data(described: Any, path: str | Path) -> Any:
    """A data module from its description, a table of `class_path` and `init_args`.

    Args:
        described: The data section of a configuration.
        path: Its file, for the error.

    Raises:
        DataError: If it names a class that is not admitted, or an argument does not fit.
    """
    return _build(DATA, described, path)


def _reject_larger(described: Any, state: dict[str, Any], path: str | Path) -> None:
    """Reject the description of a network that is larger than the weights in the same file.

    A few bytes can describe a network that exceeds all memory or takes forever to build. On the meta device tensors
    need no memory, and layers are counted while they are built.

    Raises:
        DataError: If the network is larger, or the description is not admitted.
    """
    with torch.device("meta"), _at_most(MOST_PARTS + PARTS_PER_TENSOR * len(state)):
        method = _build(METHOD, described, path)
    required = sum(value.numel() for value in method.state_dict().values() if isinstance(value, torch.Tensor))
    held = sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor))
    if required > held:
        raise CorruptCheckpointError(
            f"found weights in {path} that do not fit its description: {held:,} values for {required:,} parameters"
        )


@contextmanager
def _at_most(parts: int) -> Iterator[None]:
    """A context that stops the construction of a network with more layers than this.

    Raises:
        CorruptCheckpointError: From the constructor of the first excess layer.
    """
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > parts:
            raise CorruptCheckpointError(f"a network of more than {parts:,} modules and tensors")

    with ExitStack() as hooks:
        for kind in ("module", "parameter", "buffer"):
            handle = getattr(torch_module, f"register_module_{kind}_registration_hook")(note)
            hooks.callback(handle.remove)
        yield


_FAILURES = (ArgumentError, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""Exceptions of constructors for invalid arguments, such as a width of -1 or a table for a number."""


def _build(kind: Kind, described: Any, path: str | Path) -> Any:
    """Build the object of an untrusted description after it passed the import policy.

    Raises:
        DataError: If it does not pass, or the constructor rejects an argument.
    """
    restrict_imports()
    try:
        reject_unbounded(described)
        reject_addresses(described)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(kind.cls, "built", required=True)
        config = parser.parse_object({"built": deepcopy(described)})  # parse_object changes its argument
        leave_out_default_functions(check_arguments(config, {"built": kind.cls}, "", {}))
        return parser.instantiate(config)["built"]
    except _FAILURES as error:
        renamed = renamed_names(described)
        if renamed:
            raise DataError(
                f"found {path}, which a development version wrote ({', '.join(renamed)}) and this one "
                "cannot read; make it again"
            ) from error
        reason = explain_rejection(" ".join(str(error).split()))
        raise DataError(f"found {path}, which names what is not admitted or does not fit: {reason}") from error
