"""Reader of run.json, the facts about a run; a missing or damaged file has none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SESSIONS = "sessions"
"""Key of run.json: a list, the first session first."""
RECIPE = "recipe"
"""Key of run.json: the packaged configurations of the run, and the settings that differ from them."""


def facts_of(run: Path) -> dict[str, Any]:
    """The content of run.json; empty if it is missing or damaged.

    Args:
        run: Folder of the run.
    """
    try:
        found = json.loads((run / "run.json").read_bytes()) if (run / "run.json").is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sessions_of(facts: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The sessions in the content of run.json; none if it is damaged or of an earlier version."""
    found = (facts or {}).get(SESSIONS)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
