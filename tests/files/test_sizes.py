"""Files that ask for far more than they hold are refused before anything is made of them."""

import gzip
import json
import re
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from command import run

from tiledlaf.files import archives, headers, sizes, texts
from tiledlaf.files import image as image_files
from tiledlaf.files.nodes import CHUNK, LONGEST

SHAPE = (40, 50)
WRITTEN = {"write_empty_chunks": True}
CODECS = {
    "zstd": (zarr.codecs.ZstdCodec(), imagecodecs.zstd_encode),
    "gzip": (zarr.codecs.GzipCodec(), imagecodecs.gzip_encode),
    "blosc": (zarr.codecs.BloscCodec(), lambda data: imagecodecs.blosc_encode(data, typesize=1)),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(words, *command):
    found = run(*command)
    assert found.code in (1, 2), found
    assert "Traceback" not in found.err
    assert re.search(words, found.err), found.err


def label(path):
    return "label", path, "out.zarr", "--classes", "2", "--workers", "1", "--axes", "yx"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("form", [2, 3])
def test_chunks_that_unpack_to_more_than_a_chunk(codec, form):
    compressor, encode = CODECS[codec]
    if form == 2:
        numcodecs = pytest.importorskip("numcodecs")
        compressor = getattr(numcodecs, {"zstd": "Zstd", "gzip": "GZip", "blosc": "Blosc"}[codec])()
    array = zarr.create_array(
        "a.zarr", shape=SHAPE, chunks=SHAPE, dtype="u1", compressors=compressor, zarr_format=form
    )
    array[...] = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    assert run(*label("a.zarr")).code == 0
    (chunk,) = (p for p in Path("a.zarr").rglob("*") if p.is_file() and p.name[-1].isdigit())
    chunk.write_bytes(encode(bytes(2**24)))
    refused("it would unpack to 16777216 bytes", *label("a.zarr")[:2], "new.zarr", "--classes", "2")


@pytest.mark.parametrize("length", [0, 1, 200, 300, 70_000, 2**21])
@pytest.mark.parametrize("codec", CODECS)
def test_headers_tell_the_size(codec, length):
    Path("data").write_bytes(CODECS[codec][1](bytes(length)))
    with open("data", "rb") as file:
        assert sizes.unpacked(file, codec) in (length, 0 if codec == "zstd" else length)
    assert codec != "zstd" or length < 256 or Path("data").stat().st_size < length


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ([LONGEST + 1, 50], [40, 50]),
        ([2**63, 2**63], [40, 50]),
        ([2**20, 2**20], [2**20, CHUNK // 2**20 + 1]),
    ],
)
def test_arrays_larger_than_any_image(shape, chunks):
    zarr.create_array("a.zarr", shape=SHAPE, chunks=SHAPE, dtype="u1")
    about = json.loads(Path("a.zarr/zarr.json").read_text())
    about["shape"] = shape
    about["chunk_grid"]["configuration"]["chunk_shape"] = chunks
    Path("a.zarr/zarr.json").write_text(json.dumps(about))
    refused("larger than any image|expected chunks|expected a Zarr store", *label("a.zarr"))


def test_ome_xml_of_more_planes_than_there_can_be():
    tifffile.imwrite("a.ome.tif", np.zeros(SHAPE, np.uint8), ome=True, metadata={"axes": "YX"})
    with tifffile.TiffFile("a.ome.tif") as file:
        xml = file.ome_metadata.replace('SizeT="1"', 'SizeT="2000000000"')
    plain = np.zeros(SHAPE, np.uint8)
    tifffile.imwrite("b.ome.tif", plain, description=xml.encode(), metadata=None)
    refused("OME-XML of 2e[+]09 planes", "info", "b.ome.tif")
    headers.check_planes("a", xml.replace("2000000000", "2000"))


def test_pictures_and_tiles_that_are_far_larger_than_their_file(monkeypatch):
    monkeypatch.setattr(image_files, "PIECE", 2**16)
    PIL.Image.fromarray(np.zeros((2000, 2000), np.uint8)).save("a.png")
    zeros = np.zeros((4096, 4096), np.uint8)
    tifffile.imwrite("a.tif", zeros, tile=(4096, 4096), compression="zlib")
    tifffile.imwrite("b.tif", zeros, tile=(256, 256), compression="zlib")
    for path in ("a.png", "a.tif"):
        refused("bytes at once", "info", path)
    assert run("info", "b.tif").code == 0


def test_blank_masks_of_whole_slides():
    """Packed to a thousandth, by deflate at its limit; the header alone is looked at here."""
    with open("a.png", "wb") as file:
        file.truncate(36_000**2 // 1032)
    image_files.check_piece("a.png", 36_000**2)
    image_files.check_piece("a.png", 65_535**2)
    with pytest.raises(ValueError, match="bytes at once"):
        image_files.check_piece("a.png", 2 * 65_535**2)


def test_archives_of_blank_chunks(monkeypatch):
    zeros = np.zeros((9_000, 9_000), np.uint8)
    zarr.create_array("a.zarr", data=zeros, chunks=zeros.shape, compressors=None, config=WRITTEN)
    with zipfile.ZipFile("a.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in Path("a.zarr").rglob("*"):
            archive.write(path, path.relative_to("a.zarr"))
    assert Path("a.zarr.zip").stat().st_size < zeros.size // 500
    assert run("info", "a.zarr.zip").code == 0
    monkeypatch.setattr(archives, "CHUNK", 2**20)
    Path("a.zarr.zip").rename("b.zarr.zip")
    refused("c/0/0 would unpack to 81000000 bytes", "info", "b.zarr.zip")


def test_archives_of_long_metadata():
    with zipfile.ZipFile("a.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", b" " * 2**27)
    refused("zarr.json would unpack to 134217728 bytes", "info", "a.zarr.zip")


def test_packed_annotations():
    line = b'{"type": "FeatureCollection", "features": []' + b" " * 2**27 + b"}"
    Path("a.geojson.gz").write_bytes(gzip.compress(line))
    np.save("i.npy", np.zeros(SHAPE, np.uint8))
    refused("cannot be unpacked", "info", "a.geojson.gz")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 65 + "]" * 65])
def test_json_that_is_nested_too_deep(text):
    with pytest.raises(ValueError, match="lists within lists"):
        texts.parsed(text)


@pytest.mark.parametrize("start", ['"', '"\\\\\\"', '["[", "'])
def test_json_whose_quotes_do_not_end(start):
    """A search that tries again from each of them would take hours."""
    with pytest.raises(ValueError, match=r"Unterminated|deep|Expecting|Extra"):
        texts.parsed(start + '[\\"' * 2_000_000)


def test_json_of_numbers_without_an_end():
    with pytest.raises(ValueError, match="a number of 401 digits"):
        texts.parsed(str(10**400))


def test_json_of_ordinary_files():
    deep = "[" * 64 + "]" * 64
    assert texts.parsed(deep) == json.loads(deep)
    names = ["[[[", "{", "]"] * 50  # brackets in names, balanced over the file or not
    assert texts.parsed(json.dumps({"names": names[:60]})) == {"names": names[:60]}
    ranges = [["[0, 10)", '"[', "\\", "[\\\\"]] * 120
    assert texts.parsed(json.dumps(ranges)) == ranges
    with pytest.raises(ValueError, match="lists within lists, 66 deep"):
        texts.parsed(json.dumps(ranges)[:-1] + "," + "[" * 65 + "]" * 66)
    found = texts.parsed(f"[{2**64 - 1}, {-(2**63)}, {2**64}, 1{'0' * 300}, 1e999]")
    assert found == [2**64 - 1, -(2**63), float(2**64), 1e300, float("inf")]
    assert [type(n) for n in found] == [int, int, float, float, float]
