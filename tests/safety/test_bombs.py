"""Small files that claim to be large, and archives that hold what they should not."""

import io
import os
import runpy
import struct
import subprocess
import sys
import tarfile
import time
import urllib.request
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fovea.data import images
from fovea.data.cifar import CIFARDataModule
from fovea.data.decoding import open_picture
from fovea.data.shard_folder import ATTEMPTS, RemoteFolder
from fovea.data.shard_index import StoredFile
from fovea.errors import FoveaError

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import imagenet_archives  # noqa: E402

SIDE = 65_500


def encoded(kind):
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, kind, lossless=True)
    return bytearray(stream.getvalue())


def jpeg(height=SIDE, width=SIDE):
    data = encoded("JPEG")
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def png():
    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def webp():
    data, side = encoded("WEBP"), 16_383
    at = data.find(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", data, at)
    kept = bits & ~((1 << 28) - 1)
    struct.pack_into("<I", data, at, kept | (side - 1) | ((side - 1) << 14))
    return bytes(data)


def gif():
    size = struct.pack("<HH", SIDE, SIDE)
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b",\0\0\0\0" + size + b"\0\x02\x02D\x01\0;"


@pytest.mark.parametrize("decode", ["auto", "simplejpeg", "pil", "gpu"])
@pytest.mark.parametrize("make", [jpeg, png, webp, gif])
def test_an_image_of_billions_of_pixels_is_refused_by_its_header(make, decode):
    data = make()
    assert len(data) < 10_000
    with pytest.raises(FoveaError, match=r"x\.jpg: too many pixels: [\d,]+, .*FOVEA_MAX_PIXELS"):
        open_picture(data, "x.jpg", decode=decode).region(0, 0, 1, 1, target=(1, 1))


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # is put back
    data = jpeg(100, 100) + b"\xff\xd9"
    for limit in ("9998", "10000"):
        monkeypatch.setenv("FOVEA_MAX_PIXELS", limit)
        decode = runpy.run_path(images.__file__)["decode_bytes"]
        if limit == "10000":
            assert decode(data, "x.jpg").shape == (3, 100, 100)
            continue
        with pytest.raises(FoveaError, match="10,000, and more than 9,998"):
            decode(data, "x.jpg")
    monkeypatch.setenv("FOVEA_MAX_PIXELS", "many")
    with pytest.raises(FoveaError, match="FOVEA_MAX_PIXELS=many"):
        runpy.run_path(images.__file__)


def test_no_format_starts_a_program(tmp_path, monkeypatch):
    for name in ("gs", "ghostscript"):  # what Pillow would call for it
        (tmp_path / name).write_text("#!/bin/sh\ntouch $(dirname $0)/marker\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(data)).format == "EPS"
    with pytest.raises(FoveaError, match=r"x\.jpg: not an image"):
        open_picture(data, "x.jpg").region(0, 0, 9, 9, target=(9, 9))
    assert not (tmp_path / "marker").exists()


def archive(path, mode="w", **fields):
    with tarfile.open(path, mode) as tar:
        for name in ("a.JPEG", fields.pop("name", "b.JPEG"), "c.JPEG"):
            member = tarfile.TarInfo(name)
            member.size = 4
            if name not in ("a.JPEG", "c.JPEG"):
                for field, value in fields.items():
                    setattr(member, field, value)
            tar.addfile(member, io.BytesIO(bytes(max(4, member.size))) if member.size else None)
    return path


def read(path):
    with imagenet_archives.opened(path) as tar:
        return [member.name for member in imagenet_archives.members(tar, path.name)]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../../x.JPEG"},
        {"name": "/etc/x.JPEG"},
        {"name": "x/y.JPEG"},
        {"name": "x.sh"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.LNKTYPE, "linkname": "a.JPEG", "size": 0},
        {"type": tarfile.CHRTYPE, "size": 0},
        {"type": tarfile.FIFOTYPE, "size": 0},
    ],
)
def test_members_that_are_no_plain_image_are_refused(fields, tmp_path):
    with pytest.raises(imagenet_archives.PreparationError, match=r"refused: x\.tar"):
        read(archive(tmp_path / "x.tar", **fields))


def test_a_file_with_holes_is_refused(tmp_path):
    with (tmp_path / "x.JPEG").open("wb") as file:
        file.truncate(10**12)  # a terabyte that takes no room
    subprocess.run(["tar", "-S", "-cf", "x.tar", "x.JPEG"], cwd=tmp_path, check=True)
    assert (tmp_path / "x.tar").stat().st_size < 100_000
    with pytest.raises(imagenet_archives.PreparationError, match=r"refused: x\.tar"):
        read(tmp_path / "x.tar")


def test_packed_and_cut_archives_are_named(tmp_path):
    assert read(archive(tmp_path / "x.tar")) == ["a.JPEG", "b.JPEG", "c.JPEG"]
    whole = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    archive(tmp_path / "packed.tar", "w:gz")
    for name in ("cut.tar", "packed.tar"):
        with pytest.raises(
            imagenet_archives.PreparationError, match=f"{name} is cut off or damaged"
        ):
            read(tmp_path / name)


def test_a_list_in_the_devkit_that_unpacks_to_anything_is_refused(tmp_path):
    path = archive(tmp_path / "x.tar.gz", "w:gz", name="list", size=10**8)
    assert path.stat().st_size < 200_000
    with (
        pytest.raises(imagenet_archives.PreparationError, match="holds list"),
        imagenet_archives.opened(path, "r:gz") as tar,
    ):
        imagenet_archives.member_bytes(tar, "list")


def test_cifar_s_pickles_are_read_only_with_their_published_sum(tmp_path, monkeypatch):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/marker",)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Evil()))
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, "../escaped")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies it began with
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no network
    with pytest.raises(FoveaError, match="CIFAR-10 is neither"):
        CIFARDataModule(root=str(tmp_path), num_classes=10, batch_size=8).prepare()
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path.parent / "escaped").exists()


def test_a_server_that_sends_more_than_its_index_says_is_cut_off(tmp_path, monkeypatch):
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    sent = []

    class Endless(MemoryFileSystem):
        protocol = "endless"

        def get_file(self, rpath, lpath, callback=None, **kwargs):
            with open(lpath, "wb") as file:
                for _ in range(1000):
                    file.write(bytes(1000))
                    sent.append(1000)
                    callback.relative_update(1000)

    fsspec.register_implementation("endless", Endless, clobber=True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(FoveaError, match="more than the 5,000 bytes"):
        RemoteFolder("endless://x", tmp_path).path(StoredFile("0.tar", 5000, ""))
    assert sum(sent) <= ATTEMPTS * 6000
