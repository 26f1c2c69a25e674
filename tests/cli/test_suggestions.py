"""A mistake on the command line is one sentence with the form that was meant."""

import sys
from pathlib import Path

import pytest

from ssl_lightning.entry import main


def said(monkeypatch, capsys, command: str) -> str:
    """The line of the error."""
    monkeypatch.setattr(sys, "argv", ["ssl-lightning", *command.split()])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code not in (0, 1)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("--config"))
    return line


MISTAKES = {
    "fit --config demo --epochs 3": "expected --trainer.max_epochs",
    "fit --config demo --trainer.max_epoch 3": "expected --trainer.max_epochs",
    "fit --config demo --batch_size 32": "expected --data.batch_size",
    "fit --config demo --seed 1": "expected --seed_everything",
    "fit --config demo --learning_rate 1": "expected --model.optimizer.lr",
    "fit --config demo --num_workers=4": "expected --data.num_workers",
    "fit --config demo --ckpt x": "expected --ckpt_path",
    "fit --config demo --model.num_cluster 5": "expected a name such as num_clusters",
    "fit --config demo --data.batchsize 5": "expected a name such as batch_size",
    "fit --config demo --model DeepClustr": "expected a class such as DeepCluster",
    "fit --config demo --model.backbone resnet18": "expected a class such as ResNet18",
    "fit --config demo --data Digit": "expected a class such as Digits",
    "fit --config demo --model.optimizer adamw": "expected a class such as AdamW",
    "fit --config demo --trainer.callbacks+ EarlyStoping": "expected a class such as EarlyStopping",
    "fit --config demo --data.image_size 32,32": "found data.image_size=32,32; expected a whole number",
    "fit --config demo --model.optimizer.lr fast": "found model.optimizer.lr=fast; expected a number",
    "fit": "expected a configuration, such as --config swav",
    "fit --seed_everything 1": "expected a configuration, such as --config swav",
    "fit swav": "expected --config swav",
    "fitt --config demo": "expected fit",
    "choose_k x.safetensors": "expected choose-k",
    "choose-k x.safetensors --k 10,30": ": [10,30]",
    "choose-k x.safetensors --seed 3": "expected --seeds",
    "embed a b --devise cpu": "expected --device",
    "embed a b --data UncuratedImages --data.path ./x": "expected --data alone, with a configuration",
    "validate --config eval --data Digits --ckpt_path run": "found a folder at run; expected a file: give run/",
    "embed run out.safetensors": "give run/checkpoints/last.ckpt",
}


UNKNOWN_KEYS = {
    "weights_only: false": "found weights_only in mine.yaml, which is no option: checkpoints are always read",
    "traner: {max_epochs: 3}": "found traner.max_epochs in mine.yaml, which is not known; expected trainer.max_epochs",
    "max_epochs: 3": "found max_epochs in mine.yaml, which is not known; expected trainer.max_epochs",
    "trainer: {max_epoch: 3}": "found trainer.max_epoch in mine.yaml, which is not known; expected trainer.max_epochs",
    "run: {nme: x}": "found run.nme in mine.yaml, which is not known; expected run.name",
    "epochs: 3": "expected trainer.max_epochs",
    "zzz: {qqq: 1}": "expected one of the names that --print_config= shows",
}


@pytest.mark.parametrize("text", UNKNOWN_KEYS)
def test_a_key_of_a_file_that_is_not_known_is_named_with_the_file_and_what_was_meant(
    text, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    assert UNKNOWN_KEYS[text] in said(monkeypatch, capsys, "fit --config demo --config mine.yaml")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("fit --config demo --weights_only false", "checkpoints are always read as tensors and plain values alone"),
        ("validate --config eval --weights_only=true", "checkpoints are always read as tensors and plain values alone"),
        ("validate --config eval --verbose false", "validate and test print one table of all results"),
        ("predict --config clusters --return_predictions true", "write what predict computes"),
    ],
)
def test_an_argument_of_lightnings_functions_without_an_effect_is_no_option(command, reason, monkeypatch, capsys):
    option = command.split()[3].partition("=")[0]
    line = said(monkeypatch, capsys, command)
    assert f"found {option}, which is no option: " in line
    assert reason in line


def test_help_has_no_text_of_lightning_on_checkpoints(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ssl-lightning", "validate", "--help"])
    with pytest.raises(SystemExit):
        main()
    text = capsys.readouterr().out
    assert "--ckpt_path" in text
    assert all(word not in text for word in ("weights_only", "return_predictions", "registry:"))


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_with_what_was_meant(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/checkpoints/last.ckpt").touch()
    line = said(monkeypatch, capsys, command)
    assert MISTAKES[command] in line
    assert all(text not in line for text in ("Union", "subtypes", "<class", "NestedArg", "weights_only"))
