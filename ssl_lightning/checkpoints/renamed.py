"""Names of earlier development versions, and what they are called now: for error messages alone, never as aliases."""

import re
from typing import Any

KEYS = {
    "blur": "gaussian_blur",
    "blur_sigma": "sigma",
    "centre_fraction": "center_fraction",
    "flip": "horizontal_flip",
    "gallery": "reference_images",
    "grey": "grayscale",
    "jitter": "color_jitter",
    "jitter_probability": "color_jitter_p",
    "rotate": "degrees",
    "solarise": "solarize",
}
CLASSES = {"Drops": "MultiStep", "RandomParts": "RandomPartition"}
MOST_VALUES = 10_000
_CLASS = re.compile(rf"\b({'|'.join(CLASSES)})\b")


def renamed_key(key: str) -> str | None:
    """The present name of a configuration key, for an error; None for a key that was never renamed."""
    return f"{KEYS[key]}, the present name of {key}" if key in KEYS else None


def renamed_class(message: str) -> str:
    """What an error that names a class of an earlier version adds; nothing for any other error."""
    named = _CLASS.search(message)
    return f"; {named[1]} is named {CLASSES[named[1]]} now" if named else ""


def renamed_names(described: Any) -> list[str]:
    """Every key and class of earlier versions in a description, as `old -> new`."""
    found: list[str] = []
    left, values = [described], 0
    while left and values < MOST_VALUES:
        value, values = left.pop(), values + 1
        if isinstance(value, dict):
            found += [f"{key} -> {KEYS[key]}" for key in value if key in KEYS]
            name = str(value.get("class_path", "")).rpartition(".")[2]
            found += [f"{name} -> {CLASSES[name]}"] if name in CLASSES else []
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
    return list(dict.fromkeys(found))
