"""Configurations by name: `--config swav` is the file configs/swav.yaml of this package."""

import os
from difflib import get_close_matches
from pathlib import Path

from ssl_lightning.errors import UsageError

PACKAGE = Path(__file__).parents[1]


def configs_folder() -> Path:
    """The top-level folder of a source checkout, or the folder that the wheel carries in the package."""
    checkout = PACKAGE.parent
    in_checkout = (checkout / "pyproject.toml").is_file() and (checkout / "configs").is_dir()
    return checkout / "configs" if in_checkout else PACKAGE / "configs"


def config_names() -> list[str]:
    """Every packaged configuration by its name, such as `swav` and `data/cifar10`."""
    folder = configs_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find_config(value: str) -> Path:
    """The configuration file that a value means: an existing file, or else a packaged one. Folders never match.

    Args:
        value: A path or a name.

    Raises:
        UsageError: There is neither; lists close names.
    """
    if os.path.exists(value) and not os.path.isdir(value):
        return Path(value)
    return find_packaged(value)


def find_packaged(name: str) -> Path:
    """The packaged configuration of a name.

    Args:
        name: Such as `swav`, `data/cifar10` or `data/cifar10.yaml`.

    Raises:
        UsageError: There is none; lists close names.
    """
    stem, names = name.removesuffix(".yaml"), config_names()
    if stem in names:
        return configs_folder() / f"{stem}.yaml"
    wanted = stem.removeprefix("./").removeprefix("configs/")
    close = [each for each in names if each.rpartition("/")[2] == wanted]
    close += [each for each in get_close_matches(wanted, names, n=3, cutoff=0.5) if each not in close]
    suggestion = f"such as {', '.join(close)}" if close else "`ssl-lightning config` lists them"
    raise UsageError(
        f"found no configuration {name}; expected an existing file or the name of a packaged configuration: "
        f"{suggestion}"
    )
