"""The words of the field: no word that a reader of PyTorch's documentation would have to guess at."""

import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_READ = {"LICENSE", "tests/test_words.py", "ssl_lightning/checkpoints/renamed.py"}
"""The license, this list, and the table of names that this version has changed."""
SUFFIXES = {".py", ".yaml", ".yml", ".md", ".toml", ".cff", ".ipynb", ""}

BANNED = {
    "picture": "image",
    "pile|heap|shelf": "image collection, pool, dataset",
    "judg(e|es|ed|ing|ment)": "evaluate, probe, metric",
    "the house|the door|the hall|the rooms?": "the package, module, layer, entry point",
    "whose|whom|whoever": "which sample, the sample's",
    "says|said|told|tells?|speaks?|spoken|mentions?|mentioned": "logs, reports, returns, raises",
    "sees|seen|saw": "takes as input, features of",
    "asked|asks|wanted|wants|answers?|answered": "requested, required, target, result",
    "refus(e|es|ed|ing|al|als)": "validate, check, raise, reject",
    "memories": "memory bank, feature queue, pseudo-labels",
    "pieces?": "cluster, subset, part of a file",
    "multiplications and additions": "FLOPs",
    "goes on|go on|going on|went on|take up again|afresh": "resume, restart, anew",
    "set aside": "archive, rename",
    "(?<!standard )deviations?": "standard deviation",
    "spread over processes": "sharded, distributed over ranks",
    "quarter turns?|turned": "rotation by 90 degrees",
    "guests?": "external logger",
    "remed(y|ies)|mend|mends|mended": "fix, suggestion",
    "verbs?": "command, subcommand",
    "drawn|draws?|drawing|drew": "sampled, random; plotted for figures",
    "rhythm": "interval, schedule",
    "galler(y|ies)": "reference set; report, contact sheet",
    "centr(e|es|ed|ing)": "center",
    "gr[e]y(s|scale)?": "gray, grayscale",
    "colou(r|rs|red)": "color",
    "neighbou(r|rs|rhood|rhoods)": "neighbor",
    "behaviou(r|rs)|favou(r|rs|red|rite)": "behavior, favor",
    "(normal|solar|optim|initial|standard|synchron|recogn|penal|general|maxim|minim|summar|organ|special|serial|random"
    "|util|visual|vector|parallel|quant|regular|character|stabil)is(e|es|ed|er|ers|ing|ation|ations)": "-ize",
    "labell(ed|ing)": "labeled",
    "second-hand": "the method's name",
    "learnt|spelt|burnt": "learned, spelled",
}
"""Regular expressions of words, and what to write instead."""

IDENTIFIERS = {
    "picture",
    "pictures",
    "judge",
    "judged",
    "judges",
    "judging",
    "guest",
    "guests",
    "remedy",
    "remedies",
    "verb",
    "verbs",
    "rhythm",
    "gallery",
    "refuse",
    "refuses",
    "refused",
    "refusal",
    "refusals",
    "told",
    "tells",
    "asked",
    "whose",
    "whom",
    "who",
    "memories",
    "centre",
    "centred",
    "grey",
    "colour",
    "colours",
    "neighbour",
    "neighbours",
    "solarise",
    "normalise",
    "normalised",
    "optimiser",
    "optimisers",
    "drawn",
    "mend",
    "mended",
    "afresh",
}
"""Words that stand in no identifier, alone or between underscores."""

CLASSES = {
    "Guests",
    "Drops",
    "Course",
    "Start",
    "Origin",
    "Decision",
    "Spent",
    "Choice",
    "Cutting",
    "Reading",
    "Share",
    "Names",
    "Joined",
    "Means",
    "KnowsItsRows",
}
"""Names that tell nothing of a class."""

EXCEPTIONS = {
    "LabelledFeatures": "promised to users by this spelling, as is UNLABELLED",
    "UNLABELLED": "see LabelledFeatures",
}
"""Names that keep a banned word, and why."""


def tracked() -> list[str]:
    """Names of the files of the repository; of all but generated folders where it is unpacked without git."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return listed.stdout.splitlines()
    generated = re.compile(r"^(\.(?!github)|runs/|dist/|data/|docs/_build/)|__pycache__|\.egg-info")
    names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    return [name for name in names if not generated.search(name)]


def files():
    kept = [ROOT / name for name in tracked() if Path(name).suffix in SUFFIXES and name not in NOT_READ]
    return [path for path in kept if path.is_file() and "results" not in path.parts]


def prose(path: Path) -> list[tuple[int, str]]:
    """Lines that people read: of Python the comments and strings, of everything else all."""
    text = path.read_text()
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    lines = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(tokenize, "FSTRING_MIDDLE", -1):
            lines += enumerate(token.string.splitlines(), token.start[0])
    return lines


def words_of(name: str) -> set[str]:
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return {part.lower() for part in parts}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_has_the_words_of_the_field(path):
    found = []
    for number, line in prose(path):
        for name in EXCEPTIONS:
            line = line.replace(name, "")
        for banned, instead in BANNED.items():
            match = re.search(rf"(?<![\w-])({banned})(?![\w-])", line, re.IGNORECASE)
            if match:
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: {instead}")
    assert found == []


@pytest.mark.parametrize(
    "path", [p for p in files() if p.suffix == ".py"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_identifiers_have_the_words_of_the_field(path):
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME} - set(EXCEPTIONS)
    assert sorted(name for name in names if words_of(name) & IDENTIFIERS) == []


def test_no_class_has_a_name_that_tells_nothing():
    sources = (ROOT / "ssl_lightning").rglob("*.py")
    classes = {n.name for path in sources for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)}
    assert classes & CLASSES == set()


def test_the_list_finds_what_it_should():
    pattern = "|".join(BANNED)
    for word in ("Pictures", "judged", "GREY", "normalised", "neighbours", "remedy", "whose", "refusal"):
        assert re.search(rf"(?<![\w-])({pattern})s?(?![\w-])", word, re.IGNORECASE), word
    for word in ("image", "gray", "normalized", "standard deviation", "heapq", "drawback", "answering_machine"):
        assert not re.search(rf"(?<![\w-])({pattern})(?![\w-])", word, re.IGNORECASE), word
