"""The sets of docs/quality.md: images, labels, and which images are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from support.sections import folds_of
from tiledlaf.files import images

EDGE = 2048  # images that are longer are thinned out to every so-manyth pixel
Truth = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Set:
    """Images with labels, and which of them are learned from.

    Attributes
    ----------
    files : from the data folder to the names of all images, sorted
    image, labels, mask : paths below the data folder, with a name to fill in; mask "": none
    training, judged : from the names to those that are learned from, and to those that are judged
    classes : label values of the truth by name; None: all that no other class has
    thin : classes whose F1 is shown, taken as one
    segments : whether what lies between the thin class is compared as well, by Rand error and VOI
    """

    title: str
    files: Callable[[Path], list[str]]
    image: str
    labels: str
    training: Callable[[list[str]], list[str]]
    judged: Callable[[list[str]], list[str]]
    classes: Mapping[str, tuple[int, ...] | None]
    thin: tuple[str, ...]
    mask: str = ""
    segments: bool = False


def numbered(pattern: str, count: int) -> Callable[[Path], list[str]]:
    """Names of images that are numbered from 0 on."""
    return lambda data: [pattern.format(n) for n in range(count)]


def named(folder: str, glob: str) -> Callable[[Path], list[str]]:
    """Names of the images in a folder, sorted."""
    return lambda data: sorted(path.name for path in (data / folder).glob(glob))


def span(start: int, stop: int) -> Callable[[list[str]], list[str]]:
    """These of all names."""
    return lambda names: names[start:stop]


def nuclei(title: str, glob: str) -> Set:
    """Images of one kind of DSB 2018, the last third of which judges."""
    return Set(
        title,
        named("dsb2018/images", glob),
        "dsb2018/images/{name}",
        "dsb2018/instances/{name}",
        lambda names: names[: 2 * len(names) // 3],
        lambda names: names[2 * len(names) // 3 :],
        {"nucleus": None, "background": (0,)},
        ("nucleus",),
    )


MEMBRANE = (0, 32, 64, 96, 128)
SETS = {
    "isbi": Set(
        "ISBI 2012, membranes",
        numbered("{}", 21),
        "isbi2012/train/image/{name}.png",
        "isbi2012/train/label/{name}.png",
        span(0, 16),
        span(17, 21),
        {"membrane": (0,), "inside": (255,)},
        ("membrane",),
        segments=True,
    ),
    "vnc": Set(
        "VNC, membranes",
        numbered("{:02d}", 14),
        "vnc/stack1/raw/{name}.tif",
        "vnc/stack1/labels/labels000000{name}.png",
        span(0, 11),
        span(12, 14),
        {"membrane": MEMBRANE, "other": None},
        ("membrane",),
    ),
    "vnc5": Set(
        "VNC, five classes",
        numbered("{:02d}", 14),
        "vnc/stack1/raw/{name}.tif",
        "vnc/stack1/labels/labels000000{name}.png",
        span(0, 11),
        span(12, 14),
        {
            "membrane": MEMBRANE,
            "glia": (159,),
            "mitochondria": (191,),
            "synapse": (223,),
            "inside": (255,),
        },
        ("membrane",),
    ),
    "stained": nuclei("DSB 2018, stained nuclei", "he_*.png"),
    "fluorescence": nuclei("DSB 2018, fluorescence", "fluo_*.png"),
    "hrf": Set(
        "HRF, arteries and veins",
        named("hrf/training/images", "*.[jJ][pP][gG]"),
        "hrf/training/images/{name}",
        "hrf/training/1st_manual/{stem}_AVmanual.png",
        lambda names: [n for n in names if n[:2] < "04"],
        lambda names: [n for n in names if n[:2] >= "04"],
        {"background": (0,), "artery": (1,), "vein": (2,)},  # 3: not certain, left out
        ("artery", "vein"),
        mask="hrf/training/mask/{stem}_mask.tif",
    ),
}


@dataclass(frozen=True, eq=False)
class Loaded:
    """Images (C, y, x) and their labels 1..J, 0 where there is none; the first ones are learned."""

    names: list[str]
    images: list[np.ndarray]
    labels: list[np.ndarray]
    training: int
    step: int
    folds: list[int] = field(default_factory=list)

    def gray(self, number: int) -> np.ndarray:
        """The mean of an image's channels, (y, x)."""
        planes = self.images[number]
        return planes[0] if len(planes) == 1 else planes.mean(axis=0, dtype=np.float32)


def pixels(path: Path) -> np.ndarray:
    """All channels of an image, (C, y, x), but alpha."""
    found = images.open_image(str(path))
    planes = found.read(tuple(slice(0, n) for n in found.grid))
    return planes[:3] if len(planes) == 4 else planes


def targets(values: np.ndarray, classes: Mapping[str, tuple[int, ...] | None]) -> np.ndarray:
    """Classes 1..J of label values, 0 for values of none."""
    known = {v for own in classes.values() for v in own or ()}
    found = np.zeros(values.shape, np.uint8)
    for number, own in enumerate(classes.values(), 1):
        if own is None:
            found[~np.isin(values, list(known))] = number
        else:
            found[np.isin(values, own)] = number
    return found


def first_of(one: Set, data: Path) -> Path:
    """The first image of a set, or where it should be."""
    names = one.files(data)
    return data / one.image.format(name=names[0] if names else "*", stem="*")


def load(one: Set, data: Path, edge: int, most: int) -> Loaded:
    """A set's images, training first.

    Parameters
    ----------
    edge : images that are longer are thinned out
    most : images of either kind
    """
    names = one.files(data)
    training, judged = one.training(names)[:most], one.judged(names)[:most]
    planes, truths, step = [], [], 1
    for name in (*training, *judged):
        stem = name.partition(".")[0]
        image = pixels(data / one.image.format(name=name, stem=stem))
        values = pixels(data / one.labels.format(name=name, stem=stem))[0].astype(int)
        truth = targets(values, one.classes)
        if one.mask:
            truth[pixels(data / one.mask.format(name=name, stem=stem))[0] == 0] = 0
        step = -(-max(image.shape) // edge)
        planes.append(np.ascontiguousarray(image[:, ::step, ::step]))
        truths.append(np.ascontiguousarray(truth[::step, ::step]))
    count = len(training)
    return Loaded([*training, *judged], planes, truths, count, step, folds_of(count))
