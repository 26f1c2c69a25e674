"""Which files of a folder or members of a tar file are images, and why the others are not."""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
HEAD = 16
"""Number of bytes at the start of a file that identify its format."""
NO_IMAGE = "no image, "
"""Start of the reasons of files that are none by their ending or content."""
_SYSTEM = ("__MACOSX", "@eaDir", ".ipynb_checkpoints", ".thumbnails", ".Trash*", "lost+found", "$RECYCLE.BIN")
_ENDINGS_OF_OTHERS = (
    # raw photographs have the signature of a TIFF file, and their first image is a thumbnail
    ".arw .cr2 .dng .nef .nrw .orf .pef .raf .rw2 .sr2 .srw .3fr .iiq .thm "
    ".part .crdownload .download .tmp .bak "
    ".txt .json .jsonl .csv .tsv .xml .md .html .htm .yaml .yml .toml .ini .cfg .log .py .ipynb .sh .pdf .db "
    ".cls .index .id .pyd .pkl .pickle .pt .pth .npy .npz .mat .h5 .hdf5 .parquet .safetensors .ckpt "
    ".tar .zip .gz .xz .bz2 .7z .rar .tgz .mp4 .avi .mov .mkv .webm .mp3 .wav .flac"
)
_OTHER = frozenset(_ENDINGS_OF_OTHERS.split())
"""Endings of files that are never opened."""
_SIGNATURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|BM....\0\0\0\0|II[*+]\0|MM\0[*+]", re.DOTALL
)


@dataclass(frozen=True)
class Selection:
    """Patterns of file names.

    Attributes:
        include: Images are only files that match one of these; empty for all.
        exclude: Files that match one of these are no images.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def skipped_because(self, name: str, head: Callable[[], bytes]) -> str:
        """The reason why a file is no image; empty for an image.

        Args:
            name: Its path within the source, with slashes.
            head: Returns its first `HEAD` bytes; called for unknown endings only.

        Raises:
            OSError: From `head`.
        """
        if reason := self.left_out_because(name):
            return reason
        chosen = [pattern for pattern in self._include if pattern.matches(name)]
        never = _never_image(name)
        if never and not any(pattern.names(never) for pattern in chosen):
            return _reason_of(never)
        return "" if name.lower().endswith(ENDINGS) else _by_content(name, head)

    def left_out_because(self, name: str) -> str:
        """The reason why a pattern leaves out an image, whatever its ending; empty for none.

        Args:
            name: Its path within the source, with slashes.
        """
        if any(pattern.matches(name) for pattern in self._exclude):
            return "matched by exclude"
        if self.include and not any(pattern.matches(name) for pattern in self._include):
            return "not matched by include"
        return ""

    @cached_property
    def _include(self) -> list["_Pattern"]:
        return [_Pattern(pattern) for pattern in self.include]

    @cached_property
    def _exclude(self) -> list["_Pattern"]:
        return [_Pattern(pattern) for pattern in self.exclude]


DEFAULT_SELECTION = Selection()


def is_system_name(name: str) -> bool:
    """Whether a file or folder of this name holds no image: hidden, of a system, thumbnails or trash."""
    return name.startswith(".") or any(fnmatch.fnmatchcase(name, pattern) for pattern in _SYSTEM)


class _Pattern:
    """A glob: with a slash for the whole path, else for the file name. `*` matches slashes too."""

    def __init__(self, pattern: str) -> None:
        self.whole = "/" in pattern
        self.parts = pattern.split("/")
        self.matched = re.compile(fnmatch.translate(pattern.removeprefix("./"))).match

    def matches(self, name: str) -> bool:
        return self.matched(name if self.whole else name.rsplit("/", 1)[-1]) is not None

    def names(self, never: list[str]) -> bool:
        """Whether it writes out each of these names: as in a shell, a leading wildcard does not match them."""
        return all(
            any(part[:1] == name[:1] and fnmatch.fnmatchcase(name, part) for part in self.parts) for name in never
        )


def _never_image(name: str) -> list[str]:
    return [part for part in name.split("/") if is_system_name(part)] if _SUSPICIOUS.search(name) else []


_SUSPICIOUS = re.compile(r"(\A|/)[._@l$]")
"""A fast test that most names do not pass."""


def _reason_of(never: list[str]) -> str:
    folder = next((part for part in never if any(fnmatch.fnmatchcase(part, pattern) for pattern in _SYSTEM)), None)
    if folder is not None:
        return f"in {folder}"
    return "companion files ._*" if never[-1].startswith("._") else "hidden"


def _by_content(name: str, head: Callable[[], bytes]) -> str:
    ending = PurePosixPath(name).suffix.lower()
    if ending not in _OTHER and _SIGNATURES.match(head()):
        return ""
    return f"{NO_IMAGE}ending {ending}" if ending else f"{NO_IMAGE}without ending"
