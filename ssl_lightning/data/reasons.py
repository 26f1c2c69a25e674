"""The reasons why an image cannot be read, in words."""

from ssl_lightning.data.limits import Limits


def explained(reason: str, limits: Limits) -> str:
    """The words for the reason of an `Unreadable`, with the limit and its option.

    Args:
        reason: Its `reason`.
        limits: The limits of the decoder.
    """
    words = {
        "empty": "empty",
        "format": "of no format that is read",
        "broken": "damaged",
        "side": f"longer than {limits.max_side} pixels (data.limits.max_side)",
        "aspect": f"longer than {limits.max_aspect:g} times the short side (data.limits.max_aspect)",
        "depth": "signed, of 32 bits or of floating-point values without data.intensity_window",
        "mode": "with too many channels",
        "bomb:pixels": f"larger than {limits.max_pixels / 1e6:g} megapixels (data.limits.max_pixels)",
        "bomb:memory": f"of more than {limits.max_memory / 1e6:g} MB to decode (data.limits.max_memory)",
        "bomb:scans": "with too many scans (data.limits.max_scans, max_scan_pixels)",
        "bomb:chunks": f"of more than {limits.max_chunks} chunks, strips or tiles (data.limits.max_chunks)",
        "bomb:fill": f"with more than {limits.max_fill} fill bytes (data.limits.max_fill)",
        "bomb:runs": "run-length encoded and larger than 4 megapixels",
        "bomb:metadata": "with more metadata than content",
    }
    return words.get(reason, reason)
