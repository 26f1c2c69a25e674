"""Settings that differ from the packaged configurations, whatever sets them."""

import sys

import pytest

from ssl_lightning.cli.main import CommandLine
from ssl_lightning.cli.recipe import recipe_of


class ParsedError(Exception):
    """The command line is parsed."""


class Parsing(CommandLine):
    """A command line that ends before anything is made of it."""

    def before_instantiate_classes(self):
        error = ParsedError()
        error.recipe = recipe_of(self._parser("fit"), sys.argv[1:], self._plain_config())
        raise error


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    monkeypatch.chdir(tmp_path)

    def of(*arguments):
        with pytest.raises(ParsedError) as raised:
            Parsing(["fit", *arguments])
        return raised.value.recipe

    return of


def test_a_packaged_configuration_has_no_differences(recipe):
    assert recipe("--config", "swav", "--config", "data/cifar10") == {"of": ["swav", "data/cifar10"], "changed": []}


def test_options_and_files_of_the_user_are_listed_with_both_values(recipe, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("model:\n  init_args:\n    temperature: 0.2\ntrainer:\n  max_epochs: 3\n")
    options = ["--model.epsilon", "0.1", "--seed_everything", "4", "--trainer.devices", "1", "--run.name", "a"]
    found = recipe("--config", "swav", "--config", "scale/cpu", "--config", "mine.yaml", *options)
    assert found["of"] == ["swav", "scale/cpu"]
    assert sorted(found["changed"]) == [
        ("model.init_args.epsilon", 0.03, 0.1),
        ("model.init_args.temperature", 0.1, 0.2),
        ("seed_everything", 0, 4),
        ("trainer.max_epochs", 20, 3),
    ]
    assert capsys.readouterr().err == ""


def test_without_a_packaged_configuration_the_defaults_of_the_classes_count(recipe):
    found = recipe(
        "--model", "ssl_lightning.methods.SimCLR", "--data", "ssl_lightning.data.Digits", "--data.batch_size", "64"
    )
    assert found["of"] == ["the defaults of SimCLR", "the defaults of Digits"]
    assert found["changed"] == [("data.init_args.batch_size", 256, 64)]


def test_data_without_defaults_are_not_compared(recipe, caplog):
    data = ["--data", "ssl_lightning.data.UncuratedImages", "--data.path", "x", "--data.batch_size", "64"]
    found = recipe("--model", "ssl_lightning.methods.SimCLR", *data, "--model.temperature", "0.3")
    assert [place for place, _, _ in found["changed"]] == ["model.init_args.temperature"]
    assert "path" not in caplog.text


def test_another_network_is_listed_with_its_class(recipe):
    changed = recipe(
        "--config", "swav", "--model.backbone", "ssl_lightning.models.TimmBackbone", "--model.backbone.name", "resnet18"
    )["changed"]
    places = {place: (theirs, own) for place, theirs, own in changed}
    assert places["model.init_args.backbone.class_path"][1] == "ssl_lightning.models.TimmBackbone"
    assert places["model.init_args.backbone.init_args.name"] == (None, "resnet18")
