"""Files in Weights & Biases as paths: `wandb:<project>/<artifact>:<version>`."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ssl_lightning.errors import UsageError

PREFIX = "wandb:"
TIMEOUT = 30
"""Seconds to wait for the server."""
_REFERENCE = re.compile(r"wandb:(?P<name>(?:[\w.-]+/){1,2}[\w.-]+:[\w.-]+)(?:/(?P<file>.+))?")
_EXPECTED = "expected wandb:[<entity>/]<project>/<artifact>:<version or alias>, with /<file> where it holds several"


def fetch_all(config: Any, folder: Path) -> Any:
    """Replace every `wandb:...` in a parsed configuration by the path of a local file.

    Args:
        config: Namespaces, tables, lists and values, changed in place where possible.
        folder: Destination, with a subfolder per version of an artifact. Existing files are not downloaded again.

    Raises:
        UsageError: If an artifact is not available, or it is unclear which of its files is meant.
    """
    if isinstance(config, str):
        return str(fetch(config, folder)) if config.startswith(PREFIX) else config
    if isinstance(config, Namespace):
        for name, value in vars(config).items():
            setattr(config, name, fetch_all(value, folder))
    elif isinstance(config, dict):
        for name, value in config.items():
            config[name] = fetch_all(value, folder)
    elif isinstance(config, list):
        config[:] = [fetch_all(value, folder) for value in config]
    return config


def references(config: Any) -> list[str]:
    """The artifacts that a parsed configuration names, `[<entity>/]<project>/<artifact>:<version>`, each once."""
    if isinstance(config, str):
        match = _REFERENCE.fullmatch(config)
        return [match["name"]] if match else []
    inner = vars(config).values() if isinstance(config, Namespace) else config
    inner = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list | type({}.values())) else []
    return list(dict.fromkeys(name for value in inner for name in references(value)))


def fetch(reference: str, folder: Path) -> Path:
    """The local file of a reference, downloaded if necessary.

    Raises:
        UsageError: See `fetch_all`.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(f"found {' '.join(reference.split())}; {_EXPECTED}")
    try:
        held = _download(match["name"], folder)
    except Exception as error:  # wandb raises exceptions of several libraries
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"found no {reference} ({first}); {_EXPECTED}, and an account: wandb login") from error
    return _meant(reference, held, match["file"])


def _download(name: str, folder: Path) -> Path:
    import wandb  # slow to import

    artifact = wandb.Api(timeout=TIMEOUT).artifact(name)
    held = folder / f"{name.partition(':')[0].replace('/', '-')}-{artifact.version}"
    if not held.is_dir():
        temporary = folder / f".{held.name}.tmp-{os.getpid()}"
        artifact.download(root=str(temporary))
        try:
            temporary.rename(held)  # atomic; another process of the run may have been faster
        except OSError:
            shutil.rmtree(temporary)
    return held


def _meant(reference: str, held: Path, name: str | None) -> Path:
    """One file of an artifact; sidecars of checkpoints are ignored."""
    files = sorted(path.relative_to(held).as_posix() for path in held.rglob("*") if path.is_file())
    found = [name] if name in files else [file for file in files if not file.endswith(".json")] if name is None else []
    if len(found) != 1:
        raise UsageError(f"found {', '.join(files[:5]) or 'nothing'} in {reference}; {_EXPECTED}")
    return held / found[0]
