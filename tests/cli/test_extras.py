"""The command that installs an optional package fits the way in which this package was installed."""

import json
from importlib.metadata import PackageNotFoundError

import pytest

from ssl_lightning.cli import extras

INSTALLED = {
    "a clone, editable": (
        {"url": "file:///home/me/a%20clone", "dir_info": {"editable": True}},
        "pip install --editable '/home/me/a clone[tensorboard]'",
    ),
    "a clone": ({"url": "file:///home/me/clone", "dir_info": {}}, "pip install '/home/me/clone[tensorboard]'"),
    "a wheel": (
        {"url": "file:///tmp/ssl_lightning-0.1-py3-none-any.whl", "archive_info": {}},
        "pip install 'ssl-lightning[tensorboard] @ file:///tmp/ssl_lightning-0.1-py3-none-any.whl'",
    ),
    "a repository": (
        {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "1a2b"}},
        "pip install 'ssl-lightning[tensorboard] @ git+https://example.org/x.git@1a2b'",
    ),
    "an index": (None, "pip install 'ssl-lightning[tensorboard]'"),
    "a damaged record": ([], "pip install 'ssl-lightning[tensorboard]'"),
}


class Installed:
    """A distribution with this record of its source."""

    def __init__(self, source) -> None:
        self.source = source

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.source is None else json.dumps(self.source)


@pytest.mark.parametrize(("source", "expected"), INSTALLED.values(), ids=INSTALLED)
def test_the_command_names_what_was_installed(source, expected, monkeypatch):
    monkeypatch.setattr(extras, "distribution", lambda _: Installed(source))
    assert extras.install_command("tensorboard") == expected


def test_the_folder_of_the_clone_is_a_dot(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    source = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.setattr(extras, "distribution", lambda _: Installed(source))
    assert extras.install_command("tensorboard") == "pip install --editable '.[tensorboard]'"  # as the documentation


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "distribution", missing)
    assert extras.install_command("onnx") == "pip install 'ssl-lightning[onnx]'"
