"""Engines carry out every task once, and reject in one line what is not there."""

import socket
import sys
from importlib.util import find_spec

import pytest

from ssl_lightning import __version__
from ssl_lightning.engines import Job, LocalProcesses, engine_named
from ssl_lightning.engines.ray_cluster import RayCluster, _carried_out, _Sender
from ssl_lightning.errors import DataError, UsageError
from tests.engines.tasks import disk_is_full, folder_and_variable, odd_is_damaged, squared


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_carried_out_once_and_counted(workers):
    counted = []
    found = dict(LocalProcesses(workers).carry_out(squared, [3, 1, 2], lambda *done: counted.append(done)))
    assert found == {0: 9, 1: 1, 2: 4}
    assert [sum(values) for values in zip(*counted, strict=True)] == [3, 6]


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_data_are_the_result_of_their_task_and_a_full_disk_ends_the_work(workers):
    engine = LocalProcesses(workers)
    found = dict(engine.carry_out(odd_is_damaged, [0, 1, 2], lambda *_: None))
    assert (found[0], str(found[1]), found[2]) == (0, "found 1, which is odd", 2)
    with pytest.raises(OSError, match="part-0"):
        list(engine.carry_out(disk_is_full, [0, 0], lambda *_: None))


def test_jobs_share_the_tasks():
    shares = [Job(number, 3).share(range(8)) for number in (1, 2, 3)]
    assert sorted(task for share in shares for task in share) == list(range(8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dask",), "found engine='dask'; expected local, ray, or the address of a cluster"),
        (("local", 0), "found workers=0"),
    ],
)
def test_another_name_or_number_is_rejected(arguments, message):
    with pytest.raises(UsageError, match=message):
        engine_named(*arguments)


def test_the_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs the package ray: pip install 'ssl-lightning\[ray\]'"):
        engine_named("ray")


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the package ray")


@needs_ray
@pytest.mark.parametrize("address", ["ray://", "ray://host", "ray://:1000", "ray://host:port"])
def test_an_address_without_host_or_port_is_rejected(address):
    with pytest.raises(UsageError, match=r"of a Ray cluster|no Ray cluster at"):
        list(RayCluster(address).carry_out(squared, [1], lambda *_: None))


@needs_ray
def test_an_address_at_which_nothing_listens_is_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"ray://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UsageError, match=rf"found no Ray cluster at {address} \(\[Errno"):
            list(RayCluster(address).carry_out(squared, [1], lambda *_: None))


@pytest.fixture
def sender(tmp_path, monkeypatch):
    """A process that sends tasks from a folder, on another machine."""
    monkeypatch.chdir(tmp_path)
    return _Sender(str(tmp_path), {"SSL_LIGHTNING_DATA": "/images"}, __version__, "elsewhere")


def test_a_worker_has_the_folder_and_the_variables_of_the_command(sender, monkeypatch):
    monkeypatch.setenv("SSL_LIGHTNING_DATA", "/other")
    found = _carried_out(folder_and_variable, "SSL_LIGHTNING_DATA", sender)
    assert found.result == (sender.folder, "/images")


def test_a_worker_without_the_folder_or_with_another_version_is_named(sender):
    host = socket.gethostname()
    for changes, message in (
        ({"folder": "/no/such/folder"}, f"found no folder /no/such/folder on the machine {host}"),
        ({"version": "9.9"}, f"found version {__version__} of this package on the machine {host}; expected 9.9"),
    ):
        found = _carried_out(squared, 1, _Sender(**(vars(sender) | changes)))
        assert isinstance(found.result, UsageError)
        assert message in str(found.result)


def test_damaged_data_on_another_machine_are_named_with_it(sender):
    found = _carried_out(odd_is_damaged, 1, sender)
    assert isinstance(found.result, DataError)
    assert str(found.result) == f"found 1, which is odd (on the machine {socket.gethostname()})"


@needs_ray
@pytest.mark.slow
def test_a_server_that_does_not_answer_is_one_line(monkeypatch):
    RayCluster("ray://127.0.0.1:1")  # imports ray with the variables of this package
    client = pytest.importorskip("ray.util.client.worker", reason="needs the package grpcio")
    monkeypatch.setattr(client, "INITIAL_TIMEOUT_SEC", 1)
    monkeypatch.setattr(client, "MAX_TIMEOUT_SEC", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ray://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UsageError, match=rf"found no Ray cluster at {address} \("):
            list(RayCluster(address).carry_out(squared, [1], lambda *_: None))
