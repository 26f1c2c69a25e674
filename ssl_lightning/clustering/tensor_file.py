"""Tensors and metadata as safetensors bytes that are the same whenever the content is."""

import json

from safetensors.torch import save
from torch import Tensor


def stable_bytes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes are a function of its content.

    The library writes its metadata in an order that changes from call to call, so a stage that is made again would
    look changed to the next one, which compares sha256.

    Args:
        tensors: By name; contiguous, on the CPU.
        metadata: By name.
    """
    content = save(tensors, metadata)
    start = 8 + int.from_bytes(content[:8], "little")
    described = json.loads(content[8:start])
    header = json.dumps(described, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors begin at a multiple of eight bytes, as the format recommends
    return len(header).to_bytes(8, "little") + header + content[start:]
