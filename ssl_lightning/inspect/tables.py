"""Tables for notebooks, as DataFrames of pandas."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_lightning.cli.extras import install_command
from ssl_lightning.errors import UsageError


def table(rows: Sequence[Mapping[str, Any]], index: str | None = None) -> Any:
    """A DataFrame of rows by column name; a column that a row lacks is NaN there.

    Args:
        rows: The rows.
        index: The column that names the rows.

    Raises:
        UsageError: Without pandas.
    """
    try:
        import pandas
    except ImportError as error:
        command = install_command("notebooks")
        raise UsageError(f"found no pandas, which tables of notebooks need; expected it: {command}") from error
    frame = pandas.DataFrame(list(rows))
    return frame if index is None or index not in frame else frame.set_index(index)
