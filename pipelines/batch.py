"""A batch of slides beside one long run of the same pixels, and a batch that is killed.

Makes 24 slides of unequal heights from a stained section that scikit-image has, turned and made
brighter or darker, and cuts the file of one short. Labels one image of all the pixels but those of
that slide (the long run), then the slides as a batch: what the batch takes longer, by slide, is
what a slide costs beside its pixels. A second batch is killed with its workers once some slides are
complete, and given again: its labels are those of the first.

Times are those of the whole command, with its start and that of its workers; processor times are
those of all its processes, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from skimage import data

from tiledlaf.reports import slides as reports_slides


@dataclass(frozen=True)
class Effort:
    """How many slides, their least and most rows and their columns, tiles, and where they run."""

    slides: int = 24
    rows: tuple[int, int] = (400, 9000)
    columns: int = 2048
    tile: int = 1024
    scheduler: str = "processes"


SMALL = Effort(6, (100, 400), 256, 128, "threads")


def heights(effort: Effort) -> list[int]:
    """Rows of each slide: from few to many, each some percent more than the one before."""
    least, most = effort.rows
    steps = np.geomspace(least, most, effort.slides)
    return [int(n) for n in np.random.default_rng(0).permutation(steps)]


def pixels(rows: int, columns: int, seed: int) -> np.ndarray:
    """A slide (y, x, c) uint8."""
    rng = np.random.default_rng(seed)
    part = np.rot90(data.immunohistochemistry(), seed % 4)
    whole = np.tile(part, (-(-rows // 512), -(-columns // 512), 1))[:rows, :columns]
    noise = rng.normal(0, 6, whole.shape[:2])[..., None]
    return (whole * rng.uniform(0.85, 1.1) + noise).clip(0, 255).astype(np.uint8)


def make(folder: Path, effort: Effort) -> Path:
    """Write the slides, and the image of all the others in one; return the damaged slide."""
    place = folder / "slides"
    place.mkdir(parents=True, exist_ok=True)
    rows = heights(effort)
    damaged = effort.slides // 2
    options: dict[str, Any] = {
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": "zlib",
        "resolution": (20000, 20000),
        "resolutionunit": "CENTIMETER",
    }
    whole = []
    for number, count in enumerate(rows):
        slide = pixels(count, effort.columns, number)
        path = place / f"slide-{number + 1:02d}.tif"
        tifffile.imwrite(path, slide, **options)
        if number == damaged:
            os.truncate(path, path.stat().st_size // 3)
        else:
            whole.append(slide)
    tifffile.imwrite(folder / "all.tif", np.concatenate(whole), **options)
    (folder / "colors.csv").write_text("150,110,110\n210,205,210\n90,60,50\n")
    return place / f"slide-{damaged + 1:02d}.tif"


def command(effort: Effort, *words: str) -> list[str]:
    """The command as it is given in the folder."""
    label = [sys.executable, "-m", "tiledlaf", "label", *words, "--prototypes", "colors.csv"]
    return [*label, "--tile", str(effort.tile), "--scheduler", effort.scheduler, "--workers", "2"]


def timed(words: list[str], folder: Path) -> dict[str, Any]:
    """Seconds of a command and of the processors, its exit code, and what it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": seconds,
        "processor": spent,
        "code": done.returncode,
        "out": done.stdout,
        "err": done.stderr,
    }


def killed(words: list[str], folder: Path, results: Path, complete: int) -> dict[str, Any]:
    """Kill a batch and its workers once so many slides are complete."""
    began = time.perf_counter()
    with (folder / "killed.log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, stderr=log, start_new_session=True)
        said = re.compile(r"^(\d+)/\d+ ", re.MULTILINE)
        while process.poll() is None:
            lines = said.findall((folder / "killed.log").read_text())
            if lines and int(lines[-1]) >= complete:
                time.sleep(0.5)  # into the next one
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        process.wait()
    states = [one.state for one in reports_slides.read(str(results)).slides]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return {"seconds": time.perf_counter() - began, "code": process.returncode, "states": counts}


def same(first: Path, second: Path) -> bool:
    """Whether two folders have outputs of the same names with the same labels."""
    names = [sorted(path.name for path in place.glob("*.zarr")) for place in (first, second)]
    return names[0] == names[1] and all(
        np.array_equal(
            *(
                zarr.open_array(str(place / name / "labels/tiledlaf/0"), mode="r")[:]
                for place in (first, second)
            )
        )
        for name in names[0]
    )


def run(folder: Path, effort: Effort) -> dict[str, Any]:
    """All of it."""
    damaged = make(folder, effort)
    for name in ("long.zarr", "first", "second"):
        shutil.rmtree(folder / name, ignore_errors=True)
    warm = timed(command(effort, "slides/slide-01.tif", "warm.zarr"), folder)  # compiles
    assert warm["code"] == 0, warm["err"]
    shutil.rmtree(folder / "warm.zarr")
    long = timed(command(effort, "all.tif", "long.zarr"), folder)
    assert long["code"] == 0, long["err"]
    slides = "slides/*.tif"
    whole = timed(command(effort, slides, "--into", "first"), folder)
    words = command(effort, slides, "--into", "second")
    cut = killed(words, folder, folder / "second", effort.slides // 3)
    rest = timed(words, folder)
    again = timed(words, folder)
    shape = zarr.open_array(str(folder / "long.zarr/labels/tiledlaf/0"), mode="r").shape
    count = effort.slides
    return {
        "effort": asdict(effort),
        "megapixels": float(np.prod(shape)) / 1e6,
        "rows": heights(effort),
        "damaged": damaged.name,
        "long": {key: long[key] for key in ("seconds", "processor")},
        "batch": {key: whole[key] for key in ("seconds", "processor", "code")},
        "said of the damaged one": [x for x in whole["err"].splitlines() if damaged.name in x][-1],
        "seconds a slide beside its pixels": (whole["seconds"] - long["seconds"]) / count,
        "processor seconds a slide beside its pixels": (whole["processor"] - long["processor"])
        / count,
        "killed": cut,
        "resumed": {key: rest[key] for key in ("seconds", "processor", "code")},
        "nothing to do": {key: again[key] for key in ("seconds", "processor", "code")},
        "same labels": same(folder / "first", folder / "second"),
        "last lines": whole["out"].splitlines(),
    }


def main() -> None:
    """Read the options, run, and write FOLDER/batch.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--small", action="store_true", help="few small slides, for the tests")
    given = parser.parse_args()
    folder = given.output.absolute()
    found = run(folder, SMALL if given.small else Effort())
    (folder / "batch.json").write_text(json.dumps(found, indent=2))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
