"""`info` lists all that a file holds, also where something has to be chosen from it."""

import numpy as np
import PIL.Image
import pytest
import tifffile
from command import run

GRAY = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def info(path):
    found = run("info", path)
    assert found.code == 0, found
    assert found.err == ""
    return found.out.splitlines()


def test_series_and_pixel_sizes():
    with tifffile.TiffWriter("a.ome.tif", ome=True) as file:
        file.write(GRAY[:9, :8], metadata={"Name": "macro"})
        sizes = {"Name": "slide", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
        file.write(GRAY, subifds=1, metadata=sizes, tile=(16, 16))
        file.write(GRAY[::2, ::2], subfiletype=1, tile=(16, 16))
    assert info("a.ome.tif") == [
        "a.ome.tif: tiff, axes yx, uint16",
        "  series 0 'macro': yx 9 x 8, uint16",
        "  series 1 'slide': yx 40 x 50, uint16",
        "  level 0: yx 40 x 50, pixel size 0.5 x 0.25 micrometer",
        "  level 1: yx 20 x 25, pixel size 1 x 0.5 micrometer",
    ]


def test_channels():
    tifffile.imwrite(
        "a.ome.tif",
        np.stack([GRAY, GRAY]),
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}},
    )
    assert info("a.ome.tif")[1:] == ["  channels: 0 DAPI, 1 CD3", "  level 0: yx 40 x 50"]
    PIL.Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save("a.png")
    assert info("a.png") == [
        "a.png: raster, axes yxc, uint8",
        "  channels: red, green, blue",
        "  level 0: yx 4 x 5",
    ]


def test_time_points():
    series = np.stack([GRAY, GRAY, GRAY])
    tifffile.imwrite("a.tif", series, imagej=True, metadata={"axes": "TYX"})
    assert info("a.tif") == ["a.tif: tiff, axes tyx, uint16", "  level 0: tyx 3 x 40 x 50"]


def test_pages_that_may_be_anything():
    with tifffile.TiffWriter("a.tif") as file:
        for _ in range(5):
            file.write(GRAY, metadata=None)
    first, second = info("a.tif")
    assert first == "a.tif: tiff"
    assert "5 pages may be planes, channels or time points" in second
    assert "`" not in second
