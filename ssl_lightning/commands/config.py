"""config: print a packaged configuration."""

import sys

from ssl_lightning.cli.config_names import config_names, configs_folder, find_packaged


def main(name: str | None = None) -> None:
    """Print a packaged configuration, or list all of them.

    Args:
        name: Such as swav or data/cifar10; by default a list of all names, each with the first line of its file.

    Raises:
        UsageError: There is none of that name.
    """
    if name is not None:
        sys.stdout.write(find_packaged(name).read_text(encoding="utf-8"))
        return
    names = config_names()
    width = max(map(len, names))
    for each in names:
        first = (configs_folder() / f"{each}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        print(f"{each:<{width}}  {first.lstrip('# ')}")
