"""The index of a tar file: right offsets, and one line for everything that is broken or unsafe."""

import gzip
import io
import os
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_lightning.data.sources.tar_index import index_tar
from ssl_lightning.errors import DataError

GOOD = [("a/1.jpg", b"first"), ("a/2.jpg", b""), ("b/3.jpg", b"third" * 500)]


def linked(kind, name="x.jpg", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("mode", ["w", "w:xz", "w:gz", "w:bz2"])
def test_offsets_lead_to_the_content_whatever_the_compression(tar, mode):
    path = tar(GOOD, "pack.bin", mode)
    index = index_tar(path)
    content = path.read_bytes() if index.unpacked is None else index.unpacked.tobytes()
    found = [content[start : start + size] for start, size in zip(index.offsets, index.sizes, strict=True)]
    assert list(zip(index.names, found, strict=True)) == GOOD


def test_names_are_data(tar):
    long = "d" * 300 + "/ü\n☃.jpg"
    index = index_tar(tar([(long, b"x"), ("./plain.jpg", b"y"), ("C:\\up.jpg", b"z")]))
    assert index.names == [long, "plain.jpg", "C:\\up.jpg"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../up.jpg", b"x")], "leaves its folder, '../up.jpg'"),
        ([("a/../../up.jpg", b"x")], "leaves its folder"),
        ([("/etc/up.jpg", b"x")], "leaves its folder"),
        ([(linked(tarfile.SYMTYPE), None)], "a link, 'x.jpg'"),
        ([(linked(tarfile.LNKTYPE), None)], "a link"),
        ([(linked(tarfile.CHRTYPE), None)], "a device"),
        ([(linked(tarfile.FIFOTYPE), None)], "a device"),
        ([("a.jpg", b"x"), ("b.jpg", b"y"), ("a.jpg", b"z")], "the name 'a.jpg' twice"),
        ([("a.jpg", b"x"), ("./a.jpg", b"z")], "the name 'a.jpg' twice"),
    ],
)
def test_unsafe_members_are_rejected_in_one_line(tar, members, message):
    with pytest.raises(ValueError, match=message) as error:
        index_tar(tar(members))
    assert "\n" not in str(error.value)
    assert "images.tar" in str(error.value)


@pytest.mark.parametrize("mode", ["w", "w:xz", "w:gz", "w:bz2"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_never_taken_for_a_shorter_one(tmp_path_factory, mode, data):
    path = tmp_path_factory.mktemp("cut") / "pack.tar"
    with tarfile.open(path, mode) as archive:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 700
            archive.addfile(info, io.BytesIO(bytes([number]) * 700))
    whole = path.read_bytes()
    end = 4 * 3 * 512 if mode == "w" else len(whole) - 1  # plain: all that matters is before the padding
    path.write_bytes(whole[: data.draw(st.integers(0, end))])
    with pytest.raises(ValueError, match="make or copy it again"):
        index_tar(path)


def test_a_broken_header_is_not_taken_for_the_end(tar):
    path = tar(GOOD)
    content = bytearray(path.read_bytes())
    content[2 * 512 + 10] ^= 0xFF  # in the second header
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a broken header after 1 members"):
        index_tar(path)


def test_a_declared_size_beyond_the_file_is_rejected(tar):
    path = tar([("a.jpg", b"x")])
    content = bytearray(path.read_bytes())
    content[124:136] = b"%011o\0" % (8 << 30 - 1)
    content[148:156] = b"        "
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    with pytest.raises(ValueError, match="middle of a member"):
        index_tar(path)


def test_nothing_is_written_beside_the_file(tar, tmp_path):
    index_tar(tar([("evil/x.jpg", b"x")]))
    assert [path.name for path in tmp_path.iterdir()] == ["images.tar"]


# What tarfile raises tracebacks for, loops over or leaves out


def header(name="a.jpg", kind=b"0", size=b"00000000001\0", content=b"x", **fields):
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:124] = b"0000644\0" * 3
    block[124:136], block[136:148] = size, b"00000000000\0"
    block[156:157], block[257:265] = kind, b"ustar\x0000"
    for place, value in fields.values():
        block[place : place + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def pax(records, kind=b"x"):
    lines = b""
    for key, value in records.items():
        body = f" {key}={value}\n".encode()
        length = len(body) + 1
        length = len(body) + len(str(length + len(str(length)) - 1))
        lines += str(length).encode() + body
    return header("pax", kind, b"%011o\0" % len(lines), lines)


END = bytes(1024)
ODD = {
    "a negative size": (header(size=b"\xff" * 12), "the size"),
    "a size below zero in octal": (header(size=b"-0000000001\0"), "the size"),
    "a size of letters": (header(size=b"0000000000x\0"), "the size"),
    "a huge size": (header(size=b"\x80" + b"\xff" * 11), "middle of a member"),
    "an extended header of 8 GiB": (header("p", b"x", b"\x80\0\0\0\0\0\0\2\0\0\0\0"), "extended header of"),
    "a long name of 2 GiB": (header("n", b"L", b"20000000000\0"), "extended header of"),
    "an extended header cut off": (header("p", b"x", b"00000002000\0") , "ends within an extended header"),
    "thousands of extended headers": (pax({"path": "abc"}) * 3000 + header(), "more than 16 extended headers"),
    "thousands of long names": (header("n", b"L", content=b"a") * 3000 + header(), "more than 16 extended headers"),
    "thousands of headers for all": (pax({"comment": "a"}, b"g") * 3000 + header(), "more than 16 extended headers"),
    "extended headers of both kinds": ((pax({"mtime": "1"}) + header("n", b"L", content=b"a")) * 9, "more than 16"),
    "a size for all": (pax({"size": "5"}, b"g") + header(), "for all members with size"),
    "a sparse map of letters": (pax({"GNU.sparse.map": "a,b"}) + header(), "a sparse file"),
    "a sparse version": (pax({"GNU.sparse.major": "x", "GNU.sparse.minor": "0"}) + header(), "a sparse file"),
    "an old sparse file": (header(kind=b"S"), "a sparse file"),
    "a pax size of letters": (pax({"size": "1e9"}) + header(), "the size '1e9'"),
    "a negative pax size": (pax({"size": "-512"}) + header(), "the size '-512'"),
    "a huge pax size": (pax({"size": "9" * 5000}) + header(), "the size '999"),
    "records that are none": (header("p", b"x", b"00000000014\0", b"99 path=abc\n"), "broken extended header"),
    "a record of length 0": (header("p", b"x", b"00000000014\0", b"0 path=abcd\n"), "broken extended header"),
    "an unknown type": (header(kind=b"V"), "a member of type b'V'"),
    "a name of 100 kB": (pax({"path": "a" * 100_000}) + header(), "a name of 100000 letters"),
    "a path that climbs in pax": (pax({"path": "../../x"}) + header(), "leaves its folder"),
    "no member behind an extended header": (pax({"path": "x"}), "broken header"),
    "something behind the end": (header() + END + b"something else", "14 bytes behind its end"),
    "a damaged archive behind the end": (header() + END + b"?" + header("b.jpg")[1:], "behind its end"),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_is_one_line_with_the_name_of_the_file(tmp_path, what, packed):
    content, message = ODD[what]
    content = content if "cut off" in what else content + END
    content = content[: -len(END)] if "behind the end" in what else content
    path = tmp_path / "odd.tar"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=message) as error:
        index_tar(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path} ")
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_the_three_formats_are_read_as_tarfile_reads_them(tmp_path, style):
    names = ["a.jpg", "d" * 90 + "/" + "e" * 80 + ".jpg", "folder"]
    names += [] if style == tarfile.USTAR_FORMAT else ["f" * 200 + "/" + "g" * 200 + ".jpg", "ü☃" * 60 + ".jpg"]
    with tarfile.open(tmp_path / "x.tar", "w", format=style, pax_headers={"comment": "for all"}) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 0 if name == "folder" else number, 1.5
            info.type = tarfile.DIRTYPE if name == "folder" else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    index = index_tar(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        expected = [(member.name, member.offset_data, member.size) for member in archive if member.isfile()]
    assert list(zip(index.names, index.offsets, index.sizes, strict=True)) == expected


@pytest.mark.parametrize("packed", [False, True])
def test_archives_put_together_are_all_read(tar, tmp_path, packed):
    parts = [tar([(f"{name}.jpg", name.encode() * 700)], f"{name}.tar").read_bytes() for name in "abc"]
    path = tmp_path / "all.tar"
    path.write_bytes(b"".join(map(gzip.compress, parts)) if packed else b"".join(parts))
    index = index_tar(path)
    content = path.read_bytes() if index.unpacked is None else index.unpacked.tobytes()
    found = [content[start : start + size] for start, size in zip(index.offsets, index.sizes, strict=True)]
    assert index.names == ["a.jpg", "b.jpg", "c.jpg"]
    assert found == [name.encode() * 700 for name in "abc"]


def test_an_unpacked_archive_is_held_once(tmp_path):
    """64 MiB of content, 64 kB of file; what is held meanwhile is the content and a chunk or two."""
    content = header(size=b"%011o\0" % (64 << 20)) + bytes(64 << 20) + END
    path = tmp_path / "zeros.tar.gz"
    path.write_bytes(gzip.compress(content, 1))
    tracemalloc.start()
    index = index_tar(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert index.sizes.tolist() == [64 << 20]
    assert peak < 90 << 20


def test_an_archive_that_unpacks_to_too_much_is_rejected_before_it_is_held(tmp_path, monkeypatch):
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(40 << 20), 1))
    monkeypatch.setattr("ssl_lightning.data.sources.tar_index._LARGEST_UNPACKED", 10 << 20)
    tracemalloc.start()
    with pytest.raises(DataError, match="unpack it into a folder"):
        index_tar(path)
    assert tracemalloc.get_traced_memory()[1] < 30 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["pipe.tar", "folder.tar", "loop.tar"])
def test_what_is_no_file_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "loop.tar").symlink_to("loop.tar")
    with pytest.raises(DataError, match="is no file"):
        index_tar(tmp_path / name)
