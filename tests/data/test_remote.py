"""Images in stores: a server of S3 on this machine, with credentials, slow and cut responses, and the local cache."""

import contextlib
import http.server
import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from ssl_lightning.data import CuratedImages, UncuratedImages
from ssl_lightning.data.loader import TrainingLoader
from ssl_lightning.data.order import Blocks
from ssl_lightning.data.packs import open_unlabelled
from ssl_lightning.data.reading import CropSpec
from ssl_lightning.data.sources import block_cache, container, store
from ssl_lightning.data.sources.block_cache import BlockCache
from ssl_lightning.data.sources.opening import file_table, sources_at
from ssl_lightning.data.sources.store import BLOCK, RemoteFile, RemoteInfo
from ssl_lightning.data.views import View
from ssl_lightning.errors import DataError, UsageError

SECRET = "a-secret-that-no-message-repeats"


def numbers(dataset, number_of):
    images, valid = dataset.read(torch.arange(len(dataset)))
    return [number_of(image) if ok else None for image, ok in zip(images, valid.tolist(), strict=True)]


def tar_of(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def forget():
    """As if the process were new."""
    store._opened.cache_clear()
    container._opened.cache_clear()
    block_cache._held.clear()


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """A cache of its own, and short pauses."""
    monkeypatch.setenv("SSL_LIGHTNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "FIRST_PAUSE", 0.01)
    forget()
    yield
    forget()


@pytest.fixture
def memory():
    """Writes into fsspec's store in memory."""
    fs = MemoryFileSystem()

    def put(path, content):
        fs.pipe_file(f"/{path}", content)
        return f"memory://{path}"

    yield put
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


class Proxy:
    """Passes connections on to a server; responses can be late or cut."""

    def __init__(self, port):
        self.target, self.delay, self.cut_after, self.faults, self.sent = port, 0.0, None, 0, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.server.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.target))
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source, target, is_response):
        passed = 0
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                if is_response and self.faults > 0:
                    if self.delay:
                        self.faults -= 1
                        time.sleep(self.delay)
                    elif self.cut_after is not None and passed + len(data) > self.cut_after:
                        self.faults -= 1
                        target.sendall(data[: self.cut_after - passed])
                        target.shutdown(socket.SHUT_RDWR)
                        return
                passed += len(data)
                self.sent += len(data) if is_response else 0
                target.sendall(data)


@pytest.fixture(scope="module")
def server():
    """The port of moto's server, which checks credentials."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "3"},
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def key(server):
    """A user's key of the server."""
    kept = {"region_name": "us-east-1", "endpoint_url": f"http://127.0.0.1:{server}"}
    iam = boto3.client("iam", aws_access_key_id="first", aws_secret_access_key="first", **kept)
    iam.create_user(UserName="user")
    made = iam.create_access_key(UserName="user")["AccessKey"]
    policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
    iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=policy)
    return made["AccessKeyId"], made["SecretAccessKey"]


@pytest.fixture
def proxy(server):
    made = Proxy(server)
    yield made
    made.server.close()


@pytest.fixture
def s3(key, proxy, monkeypatch):
    """Writes into a bucket, through the proxy; credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{proxy.target}")
    client.create_bucket(Bucket="bucket")

    def put(name, content):
        client.put_object(Bucket="bucket", Key=name, Body=content)
        return f"s3://bucket/{name}"

    put.client = client
    yield put
    for each in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=each["Key"])
    client.delete_bucket(Bucket="bucket")
    client.close()


@pytest.mark.parametrize("path", ["s3://bucket/pool-*.tar", "s3://bucket/pool-{000..001}.tar"])
def test_shards_in_a_bucket_are_read_as_local_ones(path, s3, png, number_of, tmp_path):
    for shard in range(2):
        content = tar_of((f"{shard * 2 + k:06d}.png", png(shard * 2 + k)) for k in range(2))
        s3(f"pool-00{shard}.tar", content)
        (tmp_path / f"pool-00{shard}.tar").write_bytes(content)
    dataset, local = open_unlabelled(path), open_unlabelled(str(tmp_path / "pool-*.tar"))
    assert numbers(dataset, number_of) == [0, 1, 2, 3] == dataset.sample_ids.tolist()
    assert dataset.name(3) == "s3://bucket/pool-001.tar/000003.png"
    assert dataset.fingerprint_by_names == local.fingerprint_by_names


def test_the_bodies_of_a_tar_are_not_copied_to_read_its_headers(s3, png, proxy, number_of):
    path = s3("large.tar", tar_of((f"{n}.png", png(n) + bytes(8 * BLOCK)) for n in range(4)))
    proxy.sent = 0
    table = file_table(path)
    assert proxy.sent < 5 * BLOCK + 20_000  # of 32 blocks
    before = proxy.sent
    assert table.read(2).startswith(png(2))
    assert 7 * BLOCK < proxy.sent - before < 9 * BLOCK
    before = proxy.sent
    assert table.read(2).startswith(png(2))
    assert proxy.sent == before
    forget()
    file_table(path)
    assert proxy.sent - before < 3_000  # its size and version


def test_a_folder_in_a_bucket_is_listed_and_an_object_that_vanishes_is_an_unreadable_row(s3, png, number_of):
    for name, number in (("train/a/1.png", 1), ("train/b/2.png", 2), ("test/a/3.png", 3)):
        s3(f"images/{name}", png(number, (6, 5 + number)))
    s3("images/train/a/notes.txt", b"text")
    data = CuratedImages(path="s3://bucket/images")
    train, test = data.probes["images"]
    assert (numbers(train, number_of), train.labels.tolist(), train.classes) == ([1, 2], [0, 1], ["a", "b"])
    assert numbers(test, number_of) == [3]
    assert train.skipped == {"no image, ending .txt": ["a/notes.txt"]}
    s3.client.delete_object(Bucket="bucket", Key="images/train/a/1.png")
    BlockCache(block_cache.cache().folder, 0).shrink()
    assert numbers(train, number_of) == [None, 2]
    assert train.dataset.reason(0) == "missing or locked"


def test_tables_are_copied_to_the_cache(s3, png, number_of, tmp_path):
    for split, rows in (("train", [1, 2]), ("test", [3])):
        pq.write_table(pa.table({"image": [png(row) for row in rows], "label": rows}), tmp_path / "x.parquet")
        s3(f"mnist/data/{split}-00000-of-00001.parquet", (tmp_path / "x.parquet").read_bytes())
    train, test = CuratedImages(path="s3://bucket/mnist").probes["mnist"]
    assert (numbers(train, number_of), numbers(test, number_of)) == ([1, 2], [3])
    assert train.name(0) == "s3://bucket/mnist/data/train-00000-of-00001.parquet/0"


def test_workers_have_connections_of_their_own(s3, png):
    path = s3("pool.tar", tar_of((f"{n}.png", png(n, (6, 5 + n % 3)) + bytes(BLOCK)) for n in range(8)))

    def batches(workers):
        data = UncuratedImages(path=path, batch_size=4, image_size=6, num_workers=workers)
        try:
            return [(batch.index.tolist(), batch.valid.tolist(), batch.images[0]) for batch in data.train_dataloader()]
        finally:
            data.teardown("fit")

    expected = batches(0)
    BlockCache(block_cache.cache().folder, 0).shrink()
    for (rows, valid, images), other in zip(batches(2), expected, strict=True):
        assert (rows, valid) == other[:2]
        assert all(valid)
        assert torch.equal(images, other[2])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://bucket/gone.tar", "s3://bucket/gone.tar not found: check the bucket and the path"),
        ("s3://bucket/gone-*.tar", "s3://bucket/gone-.*.tar not found: check the bucket and the pattern"),
        ("s3://elsewhere/gone.tar", "s3://elsewhere/gone.tar not found"),
        ("s3://bucket/gone", "s3://bucket/gone not found"),
        ("s3://bucket/list.csv", "is a list; expected a tar file, table or array"),
        ("ftp://host/a.tar", "found the address ftp://host/a.tar; expected one that starts with s3://, gs://"),
        ("simplecache::s3://bucket/a.tar", "not found"),
        (f"https://user:{SECRET}@host/a.tar", "found credentials in the address https://host/a.tar"),
        (f"https://host/a.tar?X-Amz-Signature={SECRET}", "found credentials in the address https://host/a.tar"),
    ],
)
def test_what_is_not_there_is_one_line(path, message, s3):
    s3("list.csv", b"path\na.png\n")
    with pytest.raises((DataError, UsageError), match=message) as error:
        open_unlabelled(path)
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("wrong", ["key", "secret", "none"])
def test_wrong_or_missing_credentials_are_one_line_without_them(wrong, s3, png, monkeypatch, tmp_path, caplog):
    path = s3("pool.tar", tar_of([("0.png", png(0))]))
    if wrong == "none":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "nothing"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    else:
        monkeypatch.setenv({"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}[wrong], SECRET)
    with pytest.raises(
        DataError, match=r"s3://bucket/pool.tar cannot be read \(no access\): check the credentials"
    ) as error:
        open_unlabelled(path)
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value) + caplog.text


def test_a_slow_response_and_a_cut_connection_are_repeated(s3, png, number_of, proxy, monkeypatch):
    monkeypatch.setattr(store, "RESPONSE_SECONDS", 1)
    path = s3("pool.tar", tar_of((f"{n}.png", png(n) + bytes(BLOCK)) for n in range(3)))
    proxy.delay, proxy.faults = 2.5, 1
    assert numbers(open_unlabelled(path), number_of) == [0, 1, 2]
    assert proxy.faults == 0
    path = s3("other.tar", tar_of((f"{n}.png", png(n) + bytes(BLOCK)) for n in range(3)))
    proxy.delay, proxy.cut_after, proxy.faults = 0.0, 10_000, 2
    assert numbers(open_unlabelled(path), number_of) == [0, 1, 2]
    assert proxy.faults == 0


def test_a_store_that_never_responds_is_one_line_after_some_attempts(s3, png, proxy, monkeypatch):
    path = s3("pool.tar", tar_of([("0.png", png(0))]))
    proxy.cut_after, proxy.faults = 0, 1000
    start = time.monotonic()
    with pytest.raises(DataError, match=r"s3://bucket/pool.tar cannot be read \(\w+ in each of 4 attempts\): check"):
        open_unlabelled(path)
    assert time.monotonic() - start < 60
    assert 1000 - proxy.faults >= 4


def test_another_version_of_an_object_is_read_anew(s3, png, number_of):
    first = open_unlabelled(s3("pool.tar", tar_of([("0.png", png(1))])))
    assert numbers(first, number_of) == [1]
    other = tar_of([("0.png", png(2).ljust(len(png(1)), b"\0"))])
    forget()
    second = open_unlabelled(s3("pool.tar", other))
    assert numbers(second, number_of) == [2]
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint.startswith("v2:")


def test_every_kind_of_file_is_read_from_a_store(memory, png, number_of, tmp_path, tar):
    import numpy as np

    gray = np.arange(2 * 6 * 6, dtype=np.uint8).reshape(2, 6, 6)
    np.savez(tmp_path / "x.npz", train_images=gray, train_labels=[0, 1])
    packed = tar([("0.png", png(5))], "x.tar.gz", "w:gz")
    assert len(open_unlabelled(f"{memory('x.npz', (tmp_path / 'x.npz').read_bytes())}:train_images")) == 2
    assert numbers(open_unlabelled(memory("x.tar.gz", packed.read_bytes())), number_of) == [5]
    assert UncuratedImages(path="memory://x.npz:train_images", label="train_labels").training.labels.tolist() == [0, 1]
    assert sources_at("memory://x.{npz,tar.gz}") == ["memory://x.npz", "memory://x.tar.gz"]
    with pytest.raises(DataError, match=r"^memory://bad.parquet cannot be read as Parquet"):
        open_unlabelled(memory("bad.parquet", b"PAR1"))


def test_the_cache_keeps_to_its_size_and_the_files_that_were_used_last(tmp_path):
    kept = BlockCache(tmp_path / "c", 1000)
    for number in range(10):
        kept.put("a", number, bytes(90))
        os.utime(kept.path("a", number), (number, number))
    assert kept.get("a", 0, 90) == bytes(90)  # and is the one that was used last
    kept.put("a", 10, bytes(150))
    left = [number for number in range(11) if kept.path("a", number).exists()]
    assert sum(kept.path("a", number).stat().st_size for number in left) <= 1000
    assert {0, 10} <= set(left)
    assert 1 not in left


def test_a_block_that_is_not_whole_is_never_read(tmp_path, memory):
    content = os.urandom(2 * BLOCK + 7)
    file = RemoteFile(memory("x.bin", content))
    assert file.read(BLOCK - 5, 10) == content[BLOCK - 5 : BLOCK + 5]
    block_cache.cache().path(file.key, 1).write_bytes(b"cut")
    assert file.read(0, 1 << 40) == content
    path = tmp_path / "cache" / "aa" / "x"
    with contextlib.suppress(ZeroDivisionError), block_cache.cache().writing(path) as descriptor:
        os.write(descriptor, b"half")
        raise ZeroDivisionError
    assert list((tmp_path / "cache" / "aa").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(memory, monkeypatch, png, number_of):
    monkeypatch.setenv("SSL_LIGHTNING_CACHE", "/proc/nowhere")
    block_cache._held.clear()
    assert numbers(open_unlabelled(memory("x.tar", tar_of([("0.png", png(3))]))), number_of) == [3]


@pytest.mark.parametrize("size", ["0", "-1", "much", "nan"])
def test_a_size_of_the_cache_that_is_none_is_one_line(size, monkeypatch):
    monkeypatch.setenv("SSL_LIGHTNING_CACHE_GB", size)
    with pytest.raises(UsageError, match=f"found SSL_LIGHTNING_CACHE_GB={size}; expected a positive number"):
        block_cache.cache()


def test_a_server_without_ranges_gives_the_whole_file_at_once(memory, monkeypatch):
    content = os.urandom(3 * BLOCK)
    address = memory("x.bin", content)

    class Whole(MemoryFileSystem):
        def cat_file(self, path, start=None, end=None, **kwargs):
            return content

    monkeypatch.setattr(store, "_fs", lambda address: Whole())
    file = RemoteFile(address, RemoteInfo(len(content), "1"))
    assert file.read(BLOCK + 5, 100) == content[BLOCK + 5 : BLOCK + 105]


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(
        UsageError, match=r"gs:// needs a package that is missing.*: pip install 'ssl-lightning\[remote\]'"
    ):
        open_unlabelled("gs://bucket/a.tar")


def test_a_blockwise_order_reads_each_section_of_a_shard_once_with_a_small_cache(memory, png, monkeypatch):
    # a block of the cache has 13 images
    members = [(f"{n:03d}.png", png(n, (9 + n % 2, 9)) + os.urandom(20_000)) for n in range(390)]
    monkeypatch.setenv("SSL_LIGHTNING_CACHE_GB", "0.002")  # a fourth of the shard
    dataset = open_unlabelled(memory("pool/a.tar", tar_of(members)))
    requested = []
    fetch = RemoteFile._range
    monkeypatch.setattr(RemoteFile, "_range", lambda file, *at: requested.append(at[1] - at[0]) or fetch(file, *at))
    found = {}
    for name, blocks in (("full", None), ("blocks", Blocks(rows=26, window=2))):
        requested.clear()
        loader = TrainingLoader(dataset, CropSpec([View()], 8), 10, blocks=blocks)
        valid = torch.cat([batch.valid for batch in loader])
        assert len(valid) == 390
        assert bool(valid.all())
        found[name] = sum(requested)
    shard = sum(1024 + len(data) for _, data in members)
    assert found["blocks"] < 1.5 * shard
    assert found["full"] > 5 * shard


class FileServer:
    """Files over HTTP, by ranges or as a whole; a path can fail a number of times first."""

    def __init__(self, files, ranges=True):
        self.files, self.ranges, self.failures, self.requests = files, ranges, {}, []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                name = self.path.lstrip("/")
                server.requests.append((self.command, name, self.headers.get("Range")))
                status = server.failures.get(name, [])
                content = server.files.get(name, b"")
                code = status.pop(0) if status else 200 if name in server.files else 404
                ranged = self.headers.get("Range")
                if code == 200 and server.ranges and ranged:
                    first, last = ranged.removeprefix("bytes=").split("-")
                    whole, code = len(content), 206
                    last = min(int(last or whole - 1), whole - 1)
                    content = content[int(first) : last + 1]
                self.send_response(code)
                if code == 206:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
                if server.ranges:
                    self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", f'"{hash(server.files.get(name))}"')
                self.send_header("Content-Length", str(len(content) if code < 300 else 0))
                self.end_headers()
                if self.command == "GET" and code < 300:
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve():
    """Starts a server of files."""
    servers = []

    def start(files, ranges=True):
        servers.append(FileServer(files, ranges))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_shard_and_a_table_are_read_from_a_web_server(serve, png, number_of, ranges, tmp_path):
    members = [(f"{n}.png", png(n, (9 + n % 2, 9))) for n in range(5)]
    pq.write_table(
        pa.table({"image": [{"bytes": data, "path": name} for name, data in members]}), tmp_path / "t.parquet"
    )
    files = {"a.tar": tar_of(members), "t.parquet": (tmp_path / "t.parquet").read_bytes()}
    server = serve(files, ranges)
    for name in files:
        assert numbers(open_unlabelled(f"{server.address}/{name}"), number_of) == list(range(5))


def test_a_large_shard_is_read_by_ranges_from_a_web_server(serve, png, number_of):
    members = [(f"{n}.png", png(n, (9 + n % 2, 9)) + os.urandom(3 * BLOCK)) for n in range(6)]
    server = serve({"a.tar": tar_of(members)})
    dataset = open_unlabelled(f"{server.address}/a.tar")
    assert numbers(dataset, number_of) == list(range(6))
    ranged = [each for command, _, each in server.requests if command == "GET"]
    assert all(ranged)
    sizes = [int(end) + 1 - int(start) for start, end in (each.removeprefix("bytes=").split("-") for each in ranged)]
    assert max(sizes) < sum(len(data) for _, data in members)


def test_failures_of_a_web_server_are_repeated_or_one_line(serve, png, number_of):
    server = serve({"a.tar": tar_of([("0.png", png(0, (9, 9))), ("1.png", png(1, (8, 9)))])})
    server.failures["a.tar"] = [503, 500, 429]
    assert numbers(open_unlabelled(f"{server.address}/a.tar"), number_of) == [0, 1]
    for name, status, message in (
        ("b.tar", 404, r"b\.tar not found"),
        ("c.tar", 403, r"c\.tar cannot be read \(no access\)"),
        ("d.tar", 401, r"d\.tar cannot be read \(no access\)"),
    ):
        server.failures[name] = [status] * 20
        with pytest.raises(DataError, match=message) as raised:
            open_unlabelled(f"{server.address}/{name}")
        assert "\n" not in str(raised.value)


def test_a_new_version_on_a_web_server_is_read_anew(serve, png, number_of):
    server = serve({"a.tar": tar_of([("0.png", png(0, (9, 9))), ("1.png", png(1, (8, 9)))])})
    first = open_unlabelled(f"{server.address}/a.tar")
    assert numbers(first, number_of) == [0, 1]
    server.files["a.tar"] = tar_of([("0.png", png(7, (9, 9))), ("1.png", png(1, (8, 9)))])
    forget()
    second = open_unlabelled(f"{server.address}/a.tar")
    assert numbers(second, number_of) == [7, 1]
    assert first.fingerprint != second.fingerprint
