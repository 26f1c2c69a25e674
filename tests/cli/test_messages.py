"""No message is text of the parser: every wrong value, name or class is one line of what was found and expected."""

import inspect
import re
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest

from ssl_lightning.entry import run

TEXTS_OF_THE_PARSER = (
    *("Union", "ubtypes", "typing.", "<class", "Namespace(", "Parser key", "does not accept option", "NestedArg"),
    *("Unexpected config", "Expected a", "Got value", "Given value", "not accepted", "Problem with", "subclass types"),
    *("Does not validate", "arguments are required", "import path format", "unrecognized", "lightning.pytorch.loggers"),
)
FORM = re.compile(r"ssl-lightning: error: found [^\n]+; expected [^\n]+")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])


def ended(capsys, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and the lines of errors."""
    try:
        code = run(list(arguments))
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert "Traceback" not in said, said
    return code, [line for line in said.splitlines() if not line.startswith("--config")]


def the_line(capsys, *arguments: str, config: str = "demo") -> str:
    """The one line of a mistake, in its form."""
    code, lines = ended(capsys, "fit", "--config", config, *arguments)
    assert code == 2, (code, lines)
    assert len(lines) == 1, lines
    check_form(lines[0])
    return lines[0]


def check_form(line: str) -> None:
    assert FORM.fullmatch(line), line
    assert len(line) <= 320, line
    assert [text for text in TEXTS_OF_THE_PARSER if text in line] == [], line


OPTIONS = {
    "Literal": ("--doctor.on_collapse stp", "doctor.on_collapse=stp; expected warn or stop (did you mean stop?)"),
    "Literal of a class": (
        "--model.backbone.stem imagenett",
        "model.backbone.stem=imagenett; expected imagenet or cifar",
    ),
    "Literals and bool": ("--trainer.deterministic maybe", "trainer.deterministic=maybe; expected true, false or warn"),
    "Literals of numbers": ("--trainer.precision 8", "trainer.precision=8; expected 32-true, bf16-mixed or 16-mixed"),
    "fp16": ("--trainer.precision fp16", "expected 32-true, bf16-mixed or 16-mixed (did you mean 16-mixed?)"),
    "bfloat16": ("--trainer.precision bfloat16", "(did you mean bf16-mixed?)"),
    "bool": ("--model.sobel maybe", "model.sobel=maybe; expected true or false"),
    "int": ("--model.num_clusters many", "model.num_clusters=many; expected a whole number"),
    "int or null": ("--run.save_every_n_steps x", "run.save_every_n_steps=x; expected a whole number"),
    "int and bool": ("--seed_everything x", "seed_everything=x; expected true, false or a whole number"),
    "float": ("--data.max_unreadable some", "data.max_unreadable=some; expected a number"),
    "float of an optimizer": ("--model.optimizer.lr [1]", "model.optimizer.lr=[1]; expected a number"),
    "tuple": ("--data.mean 0.5", "data.mean=0.5; expected a list of 3 numbers such as [0.1, 0.2, 0.3]"),
    "tuple of another length": ("--data.std [1,2]", "data.std=[1, 2]; expected a list of 3 numbers"),
    "entry of a tuple": ("--data.mean [a,b,c]", "data.mean.0=a; expected a number"),
    "tuple or Literal": ("--data.intensity_window minmx", "or percentile (did you mean minmax?)"),
    "list of texts": (
        "--data CuratedImages --data.include *.jpg",
        "data.include=*.jpg; expected a list such as [a, b]: ['*.jpg']",
    ),
    "list of dataclasses": ("--data.views 3", "data.views=3; expected a list such as [{count: ...}]"),
    "field in a list": ("--data.views [{count:two}]", "expected a space after the colon, as in count: two"),
    "table": ("--data.probe_sets 3", "data.probe_sets=3; expected a table such as {name: {train: ...}}"),
    "text": ("--data CuratedImages --data.path [1]", "data.path=[1]; expected text"),
    "class": ("--model 3", "model=3; expected a class such as BYOL"),
    "class as a list": ("--model [1]", "(methods of this package)"),
    "class of another kind": ("--model torch.nn.Linear", "model=torch.nn.Linear; expected a class such as"),
    "schedule of torch": (
        "--model.schedule torch.optim.lr_scheduler.StepLR",
        "such as MultiStep, WarmupCosine (schedules of this",
    ),
    "class that was given": (
        "--model.schedule CosineAnnealingLR",
        "such as MultiStep, WarmupCosine (schedules of this package)",
    ),
    "optimizer": ("--model.optimizer 3", "model.optimizer=3; expected a class such as"),
    "optimizer of torch": ("--model.optimizer torch.optim.AdmW", "expected a class such as AdamW"),
    "network": ("--model.backbone resnet_50", "for resnet50 of timm: TimmBackbone with name resnet50"),
    "logger": ("--trainer.logger CSVLoger", "expected a class such as CSVLogger, or a list of such, or true or false"),
    "logger without a class": ("--trainer.logger.save_dir x", "found --trainer.logger.save_dir without a class"),
    "callback": ("--trainer.callbacks EarlyStoping", "expected a class such as EarlyStopping, or a list of such"),
    "callback appended": ("--trainer.callbacks+ 3", "trainer.callbacks=3; expected a class such as"),
    "path for a source": ("--data ./images", "--data.path ./images"),
    "argument of another class": (
        "--model.optimizer SGD --model.optimizer.trust 0.5",
        "expected one of the arguments of SGD: lr,",
    ),
    "argument of a callback": (
        "--trainer.callbacks.clusterer KMeans",
        "expected one of the arguments of ProbeFeatures, the last of trainer.callbacks: probes",
    ),
    "misspelled argument": ("--model.backbone.widht 3", "expected a name such as width (arguments of ResNet18)"),
    "argument appended": ("--trainer.callbacks+ EarlyStopping --trainer.callbacks.monitr x", "such as monitor"),
    "required argument": (
        "--trainer.logger CSVLogger",
        "found CSVLogger at trainer.logger without save_dir; expected --trainer.logger.save_dir",
    ),
    "required, appended": ("--trainer.callbacks+ EarlyStopping", "expected --trainer.callbacks.monitor"),
    "required by a source": ("--data UncuratedImages", "found UncuratedImages without path; expected --data.path"),
    "configuration as a source": ("--data data/digits", "of this package), or --config data/digits"),
    "no path": ("--data.path ./images", "; for images of your own: --config data/folder --data.path PATH"),
    "no value of an argument": ("--data.drop_last", "found --data.drop_last without a value; expected one"),
    "no value": ("--run.name", "found --run.name without a value; expected text"),
    "no class": ("--model --trainer.max_steps 3", "found --model without a value; expected a class such as"),
    "no inner class": ("--model.schedule --trainer.max_steps 3", "found --model.schedule without a value; expected"),
}


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_does_not_fit_is_one_line_with_its_full_name(options, expected, capsys):
    assert expected in the_line(capsys, *options.split())


FILES = {
    "trainer:": "found trainer in mine.yaml without options; expected a table of options",
    "data:": "found data in mine.yaml without options; expected",
    "trainer: 3": "found trainer=3 in mine.yaml; expected a table of options",
    "run: [1]\nmodel: {init_args: {num_clusters: 4}}": "found run=[1] in mine.yaml; expected a table of options",
    "trainr: {max_epochs: 3}": "found trainr.max_epochs in mine.yaml, which is not known; expected trainer.max_epochs",
    "max_epochs: 3": "found max_epochs in mine.yaml, which is not known; expected trainer.max_epochs",
    "trainer: {max_epoch: 3}": "found trainer.max_epoch in mine.yaml, which is not known; expected trainer.max_epochs",
    "doctor: {on_colapse: stop}": "found doctor.on_colapse in mine.yaml, which is not known; expected doctor.on_c",
    "run: {nme: x}": "found run.nme in mine.yaml, which is not known; expected run.name",
    "trainer: {precision: 8}": "found trainer.precision=8 in mine.yaml; expected 32-true, bf16-mixed or 16-mixed",
    "trainer: {callbacks: [3]}": "found trainer.callbacks.0=3 in mine.yaml; expected a class such as",
    "trainer: {callbacks: [{class_path: EarlyStoping}]}": "expected a class such as EarlyStopping",
    "trainer: {callbacks+: [{class_path: EarlyStopping, init_args: {monitr: x}}]}": (
        "found trainer.callbacks+.0.init_args.monitr in mine.yaml, which is not known there; expected a name such"
    ),
    "trainer: {logger: {class_path: CSVLogger, init_args: {save_dirr: x}}}": "a name such as save_dir (arguments o",
    "ckpt_path: [1]": "found ckpt_path=[1] in mine.yaml; expected text",
    "model: [1]": "found model=[1] in mine.yaml; expected a class such as",
    "model: {class_path: 3}": "found model.class_path=3 in mine.yaml; expected a class such as",
    "model: {class_pth: SimCLR}": "found model.class_pth in mine.yaml, which is not known there; expected a name s",
    "model: {init_args: [1]}": "found model.init_args=[1] in mine.yaml; expected a table of arguments",
    "model: {init_args: {num_cluster: 3}}": "found model.init_args.num_cluster in mine.yaml, which is not known th",
    "model: {init_args: {backbone: 3}}": "found model.init_args.backbone=3 in mine.yaml; expected a class such as",
    "model: {init_args: {backbone: {init_args: {widht: 3}}}}": "a name such as width (arguments of ResNet18)",
    "model: {init_args: {sampler: balancd}}": "expected balanced or natural (did you mean balanced?)",
    "model: {init_args: {optimizer: {class_path: SGD, init_args: {trust: 3}}}}": "the arguments of SGD: lr, momentum",
    "model: {init_args: {optimizer: {class_path: AdamW, init_args: {betas: 0.9}}}}": "a list of 2 numbers such as",
    "model: {init_args: {schedule: {class_path: torch.optim.lr_scheduler.StepLR}}}": "such as MultiStep, WarmupCosine",
    "data: ./images": "found data=./images in mine.yaml; expected a class such as",
    "data: {init_args: {views: {count: 2}}}": "found data.init_args.views={count: 2} in mine.yaml; expected a list",
    "data: {init_args: {views: [{cout: 2}]}}": "found data.init_args.views.0.cout in mine.yaml, which is not known",
    "data: {init_args: {probe_sets: {a: 3}}}": "found data.init_args.probe_sets.a=3 in mine.yaml; expected a table",
    "data: {init_args: {probe_sets: {a: {trin: x}}}}": "a name such as train (arguments of ProbeSet)",
    "data: {init_args: {mean: {r: 1}}}": "found data.init_args.mean={r: 1} in mine.yaml; expected a list of 3 numbers",
    "config: mine.yaml": "found mine.yaml, which includes itself by its key config; expected",
}


@pytest.mark.parametrize(("text", "expected"), FILES.items(), ids=FILES)
def test_a_file_that_does_not_fit_is_one_line_with_its_name(text, expected, capsys):
    Path("mine.yaml").write_text(f"{text}\n")
    assert expected in the_line(capsys, "--config", "mine.yaml")


@pytest.mark.parametrize(
    ("value", "in_a_file"),
    [
        pytest.param("wrong value", False, marks=pytest.mark.slow),
        ("{a: {b: 1}}", True),
        pytest.param("[3.5]", False, marks=pytest.mark.slow),
    ],
)
def test_no_option_of_the_trainer_prints_its_type(value, in_a_file, capsys):
    for name in inspect.signature(pl.Trainer).parameters:
        Path("mine.yaml").write_text(f"trainer: {{{name}: {value}}}\n")
        given = ["--config", "mine.yaml"] if in_a_file else [f"--trainer.{name}", value]
        code, lines = ended(capsys, "fit", "--config", "demo", *given, "--print_config")
        assert code in (0, 2), (name, lines)
        assert len(lines) == (code == 2), (name, lines)
        for line in lines:
            check_form(line)
            assert f"trainer.{name}" in line


@pytest.mark.parametrize("given", [["scale/cpu"], ["data/digits"], ["shared/wandb"], ["scale/cpu", "data/cifar10"]])
def test_configurations_without_a_method_say_so(given, capsys):
    options = [word for name in given for word in ("--config", name)]
    code, lines = ended(capsys, "fit", *options)
    assert (code, len(lines)) == (2, 1)
    assert "found no method; expected a configuration, such as --config swav" in lines[0]


@pytest.mark.parametrize(("command", "config"), [("validate", "eval"), ("test", "eval"), ("predict", "clusters")])
def test_a_checkpoint_without_a_configuration_is_one_line_with_the_right_one(command, config, capsys):
    code, lines = ended(capsys, command, "--ckpt_path", "last.ckpt")
    assert (code, len(lines)) == (2, 1)
    assert f"found no configuration; expected --config {config}" in lines[0]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("embed", "found no checkpoint and no out; expected ssl-lightning embed CHECKPOINT OUT"),
        ("embed a", "found no out; expected ssl-lightning embed a OUT"),
        ("choose-k x.safetensors --k ten", "found k=ten; expected a list such as [1, 2]: [ten]"),
        ("choose-k x.safetensors --clusterer KMeens", "expected a class such as KMeans"),
        (
            "choose-k x.safetensors --clusterer KMeans --clusterer.metric euclid",
            "clusterer.metric=euclid; expected l2 or",
        ),
        ("predict --config clusters --trainer.callbacks.clusterer.metric euclidean", "expected l2 or cosine"),
    ],
)
def test_other_subcommands_have_the_same_lines(command, expected, capsys):
    code, lines = ended(capsys, *command.split())
    assert (code, len(lines)) == (2, 1), lines
    check_form(lines[0])
    assert expected in lines[0]
