"""README and pages: their code blocks, and the commands that a shell makes of them.

A block of `bash` or `python` is a test. One that cannot run has a comment above it, `<!-- not run: reason -->`, whose
reason is a key of `NOT_RUN`.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
NOT_RUN = {
    "account": "needs an account at Weights & Biases",
    "config command": "`ssl-lightning config` writes to standard output: see test_commands.py",
    "environment": "sets a variable of the reader's shell",
    "gpu": "needs a GPU",
    "hours": "takes an hour; tests/soak runs a part of it",
    "install": "downloads packages",
    "interactive": "opens a browser; tests/test_notebooks.py runs the notebook",
    "placeholder": "holds a placeholder that the text explains",
    "slurm": "needs Slurm",
}
"""Why a block is not run, by the key that stands in the comment above it."""
SHELL = {"bash", "sh", "shell", "console"}
SHOWN = {"yaml", "text", "{toctree}", "{eval-rst}", "{literalinclude}", "{include}", "{glossary}"}
"""Blocks that are shown and not run."""
BLOCK = re.compile(r"^(?:<!-- not run: ([^\n]+) -->\n)?```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECORD = r"""#!/bin/sh
printf '%s\036' "$(basename "$0")" "$@" >> "$RECORD"
printf '\035' >> "$RECORD"
"""
"""Stands for a program and notes what it was called with: a field ends with RS, a call with GS."""
STAGES = r"""
case "$1" in clusterfit|divide_contrast)
  for argument in "$@"; do case "$argument" in *.ckpt) set -- "$@" -o "${argument#*=}" ;; esac; done
  make -s -f "$MAKEFILE" -o .venv/.done "BIN=$BIN" "PYTHON=$INTERPRETER" "$@" ;;
esac
"""
"""What the stand-in of make does beside: it calls the stages, whether or not a checkpoint that it is given exists."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: What stands behind the fence.
        text: What stands in it.
        reason: Why it is not run; empty for a block that is.
        before: The line above it, which names the file of a YAML block.
    """

    language: str
    text: str
    reason: str
    before: str


def title(page: Path) -> str:
    """Path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        reason, language, body = match.groups()
        above = text[: match.start()].rstrip().rpartition("\n")[2]
        found.append(Block(language.split(" ")[0], body, reason or "", above))
    return found


def runnable(page: Path) -> list[Block]:
    """The blocks of a page that are run, in their order, and the YAML files that it names."""
    return [block for block in blocks(page) if not block.reason and block.language in {*SHELL, "python", "yaml"}]


def calls(block: Block, folder: Path, stages: bool = False) -> list[list[str]]:
    """Commands of a shell block as bash expands them.

    Args:
        block: Of a shell.
        folder: In which the block is run; it gets what make reads of the repository.
        stages: Add the commands of make's stages.
    """
    programs, record = folder / ".bin", folder / ".record"
    programs.mkdir(exist_ok=True)
    for name in ("configs", "ssl_lightning"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    for name in ("ssl-lightning", "make"):
        also = STAGES.replace("make -s", f"{_which('make')} -s") if stages and name == "make" else ""
        (programs / name).write_text(RECORD + also)
        (programs / name).chmod(0o755)
    record.write_text("")
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RECORD": str(record),
        "BIN": str(programs),
        "MAKEFILE": str(ROOT / "Makefile"),
        "INTERPRETER": sys.executable,
    }
    done = subprocess.run(
        ["bash", "-e", "-c", block.text],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block.text}\n{done.stderr}"
    return [call.split("\036")[:-1] for call in record.read_text().split("\035")[:-1]]


def by_path(arguments: list[str]) -> list[str]:
    """Names of packaged configurations as the paths of their files, where the command line takes paths alone."""
    line = find_spec("ssl_lightning.cli")
    if line is not None and line.submodule_search_locations:  # the package, which resolves names
        return arguments
    named = [(ROOT / "configs" / f"{argument}.yaml") for argument in arguments]
    return [
        str(path) if before == "--config" and path.is_file() else argument
        for before, argument, path in zip(["", *arguments], arguments, named, strict=False)
    ]


def in_this_version(code: str) -> str:
    """Python code as the constructors of this version take it: with `Preprocessing`, or with its three values."""
    if find_spec("ssl_lightning.models.preprocessing"):
        return code
    values = "image_size: int, mean: tuple[float, float, float], std: tuple[float, float, float]"
    code = code.replace("preprocessing=data.preprocessing", "image_size=data.image_size, mean=data.mean, std=data.std")
    code = code.replace("preprocessing: Preprocessing", values)
    code = code.replace("from ssl_lightning.models import Preprocessing\n", "")
    return code.replace("schedule, preprocessing)", "schedule, image_size, mean, std)")


def _which(program: str) -> str:
    """Where a program is, which a stand-in of the same name hides."""
    return subprocess.run(["which", program], capture_output=True, text=True, check=True).stdout.strip()
