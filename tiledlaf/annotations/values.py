"""What the values of label images mean: classes, instances, colors, pixels without a label."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from ..errors import InputError, understood
from ..files import image as image_files
from ..files import images, texts
from ..files.cropped import Cropped
from ..files.derived import Derived
from ..files.image import FileWarning, Image, Reader, State
from ..files.resampled import Resampled
from ..kernels.arrays import Array
from ..model.classes import UNLABELED
from ..tiles import Box
from . import opening
from .opening import Painting

INSTANCES = ("object-border", "object", "none")
BACKGROUND, OBJECT, BORDER = 0, 1, 2
EDGE, PARTS = 1024, 16  # of the parts of an image in which colors are looked for, and how many
SHOWN = 8  # colors that a message names
MOST = 256  # colors that a label image is expected to have at most
PALETTES = (".png", ".bmp", ".tif", ".tiff")
COLORS = 'JSON of colors like {"tumor": "#ff0000"}'
COLOR = re.compile(r"#[0-9a-f]{6}")


def is_one_of(values: Array, wanted: Iterable[int]) -> np.ndarray:
    """Where values are one of these whole numbers, exact for integers of 64 bits."""
    if values.dtype.kind not in "ui":
        return np.isin(values, list(wanted))
    # NumPy would compare int64 with uint64 as float64
    limits = np.iinfo(values.dtype)
    kept = [v for v in wanted if limits.min <= v <= limits.max]
    return np.isin(values, np.array(kept, values.dtype))


# What the user says


@dataclass(frozen=True)
class Meaning:
    """What the user says of the values of label images.

    Attributes
    ----------
    instances : "object-border", "object-border:WIDTH", "object", or None
        Each value but 0 is an object. They become the classes background, object and border:
        pixels of an object that are at most WIDTH (1) pixels from another object or the background.
    colors : (class, #rrggbb), ...
    ignore : values, and colors as #rrggbb, of pixels without a label; where the values do not
        become others, this is left to what reads them
    """

    instances: str | None = None
    colors: tuple[tuple[str, str], ...] = ()
    ignore: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        if self.instances is not None:
            _width(self.instances)
        if self.instances is not None and self.colors:
            raise InputError("expected at most one of `instances` and `colors`")
        classes: dict[int, str] = {}
        for name, color in self.colors:
            if classes.setdefault(_packed(color), name) != name:
                raise InputError(f"expected each color in one class of `colors`, got {color} twice")

    @property
    def converts(self) -> bool:
        """Whether label values become others, so that `ignore` is about those in the file."""
        return self.instances is not None or bool(self.colors)

    @property
    def values(self) -> tuple[int, ...]:
        """What `ignore` says in values; colors are those of `Colored`."""
        return tuple(_packed(v) if isinstance(v, str) else v for v in self.ignore)


def meaning(
    instances: str | None = None,
    colors: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
    ignore: int | str | Sequence[int | str] | None = None,
) -> Meaning:
    """The meaning that keyword arguments name.

    Parameters
    ----------
    instances : as in `Meaning`
    colors : {"tumor": "#ff0000", "stroma": ["#00ff00", [0, 0, 255]]}, or pairs
    ignore : a value or a color, or several

    Raises
    ------
    ValueError
        If they do not say what they should.
    """
    with understood("colors", colors, 'a mapping such as {"tumor": "#ff0000"}'):
        pairs = list(colors.items()) if isinstance(colors, Mapping) else list(colors or ())
        found = [(str(name), text) for name, given in pairs for text in _colors_of(given)]
    several = isinstance(ignore, Sequence) and not isinstance(ignore, str)
    every: Any = () if ignore is None else ignore if several else (ignore,)
    with understood("ignore", ignore, "label values or colors"):
        left = tuple(_color(v) if isinstance(v, str) else int(v) for v in every)
    return Meaning(instances, tuple(found), left)


def read_colors(given: Sequence[str]) -> list[tuple[str, str]]:
    """Colors of classes from texts such as tumor=#ff0000, or from JSON files of them."""
    found: list[tuple[str, str]] = []
    for text in given:
        if "=#" in text:
            parts = re.split(r",(?=[^,]*=#)", text)
            found += [(name, _color(color)) for name, color in (p.rsplit("=", 1) for p in parts)]
            continue
        if not os.path.isfile(text):
            raise InputError(f"`colors` expects CLASS=#rrggbb or a JSON file of them, got {text!r}")
        entries = texts.read_json(text, COLORS)
        try:
            own = meaning(colors=dict(entries)).colors
        except (ValueError, TypeError) as error:
            reason = f", {error}" if isinstance(error, InputError) else ""
            raise InputError(f"{text}: expected {COLORS}{reason}") from None
        if not own:
            raise InputError(f"{text}: expected {COLORS}, got none")
        found += own
    return found


def _colors_of(given: Any) -> list[str]:
    """One color or several, each as text or as three numbers."""
    if isinstance(given, str):
        return [_color(given)]
    parts = list(given)
    whole = all(isinstance(p, int | np.integer) and not isinstance(p, bool) for p in parts)
    if len(parts) == 3 and whole:
        if not all(0 <= p <= 255 for p in parts):
            raise InputError(f"`colors` expects numbers of 0 to 255, got {parts}")
        return [_hex(parts)]
    return [color for part in parts for color in _colors_of(part)]


def _color(text: str) -> str:
    if not COLOR.fullmatch(text.strip().lower()):
        raise InputError(f"expected a color like #ff0000, got {text!r}")
    return text.strip().lower()


def _packed(color: str) -> int:
    return int(color[1:], 16)


def _shown(value: int) -> str:
    return f"#{value:06x}"


def _hex(channels: Sequence[int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _width(instances: str) -> int:
    """How wide borders are, 0 without them."""
    name, colon, width = str(instances).partition(":")
    fits = name in INSTANCES[:2] and (not colon or (name == INSTANCES[0] and width.isdecimal()))
    if not fits or (colon and not 1 <= int(width) <= 64):
        raise InputError(
            "`instances` expects object-border, object-border:WIDTH (of 1 to 64 pixels) or "
            f"object, got {instances!r}"
        )
    return 0 if name == "object" else int(width or 1)


# Label images, and readers that give their values another meaning


def open_labels(
    given: Any,
    like: Image,
    meant: Meaning = Meaning(),
    painting: Painting = Painting(),
) -> Image:
    """Labels of one channel of whole numbers: a path, also of annotations, an array, or an image.

    Parameters
    ----------
    like : the image that they belong to
    meant : what the values of a label image mean
    painting : how annotations become labels

    Raises
    ------
    ValueError
        If it has other pixels; says how they can be understood.
    """
    if opening.is_annotations(given):
        if meant.converts:
            word = "instances" if meant.instances else "colors"
            raise InputError(f"{given}: expected a label image for `{word}`, got annotations")
        return opening.open_annotations(given, like, painting)
    if meant.colors and isinstance(given, str | os.PathLike):
        labels = images.open_image(given)  # of a palette image, the colors
    elif isinstance(given, str | os.PathLike):
        labels = images.open_stored_labels(given, like)
    else:
        labels = images.as_labels(given, like)
    if meant.colors and labels.used_channels < 3:
        raise InputError(
            f"{labels.path}: expected a label image of three channels or a palette for `colors`, "
            f"got {labels.used_channels} channel(s)"
        )
    if labels.stored_channels != 1:
        labels = _one_channel(labels, meant)
    if np.dtype(labels.dtype).kind == "f":
        labels = _wrapped(labels, Whole(labels.reader, labels.path))
    if np.dtype(labels.dtype).kind not in "uib":
        raise InputError(
            f"{labels.path}: expected labels as whole numbers of one channel, got {labels.dtype}"
        )
    if meant.instances is not None:
        width = _width(meant.instances)
        labels = _wrapped(labels, Instances(labels.reader, labels.shape, width, meant.values))
    return labels


def open_mask(given: Any, like: Image, painting: Painting = Painting()) -> Image:
    """A mask: annotations, or an image of one channel; gray ones are often stored as RGB.

    One of other channels is returned as it is, to be refused.
    """
    mask = opening.as_mask(given, like, painting)
    if mask.stored_channels < 3:
        return mask
    try:
        return _one_channel(mask, Meaning())
    except InputError:
        return mask


def numbers_of(labels: Image) -> Image | None:
    """The same pixels, with the number of each one's object; None if only classes are known.

    Objects are those of an instance mask, or annotations, one by one.
    """
    reader = _numbering(labels.reader)
    return None if reader is None else _wrapped(labels, reader)


def _numbering(reader: Reader) -> Reader | None:
    """The reader of numbers of objects behind that of classes."""
    if isinstance(reader, Instances):
        return reader.source
    if isinstance(reader, opening.Annotations):
        return dataclasses.replace(reader, each=True)
    source = _numbering(reader.source) if isinstance(reader, Cropped | Resampled) else None
    return None if source is None else dataclasses.replace(reader, source=source)  # type: ignore[type-var]


def value_names(labels: Image) -> dict[str, str]:
    """Names of label values that the way of reading gives them."""
    reader = _reader(labels)
    names = reader.names if isinstance(reader, Instances | Colored) else ()
    return {str(value): name for value, name in names}


def is_color(labels: Image) -> bool:
    """Whether label values are colors, 0xrrggbb."""
    return isinstance(_reader(labels), Colored)


def palette_of(labels: Image) -> dict[int, str]:
    """The color of each label value, where values are indices of a palette."""
    suffix = PurePath(labels.path).suffix.lower()
    if is_color(labels) or not labels.reader.stored or suffix not in PALETTES:
        return {}
    import PIL.Image

    try:
        with PIL.Image.open(labels.path) as picture:
            found = picture.getpalette("RGB") if picture.mode == "P" else None
    except (OSError, ValueError):  # other readers know more kinds of TIFF
        return {}
    flat = found or []
    return {i: _hex(flat[3 * i : 3 * i + 3]) for i in range(len(flat) // 3)}


def _reader(labels: Image) -> Reader:
    """What makes the label values, on whatever grid they are read."""
    reader = labels.reader
    return reader.source if isinstance(reader, Resampled) else reader


def _wrapped(labels: Image, reader: Reader, dtype: str = "int64") -> Image:
    return dataclasses.replace(labels, reader=reader, dtype=dtype)


@dataclass(frozen=True)
class _Wrapped(Derived):
    """A reader whose pixels become other label values, the same in every window."""

    name = "labels"

    def open(self, path: str, name: str) -> Any:
        """The array as stored, which the source may hold as well."""
        return image_files.opened(self.source, path, name)

    def state(self, path: str, name: str) -> State:
        """What is stored, and how it is read."""
        rest = [getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "source"]
        return [*self.source.state(path, name), (type(self).__name__, 0, repr(rest))]


@dataclass(frozen=True)
class Whole(_Wrapped):
    """Whole numbers that are stored as floating-point numbers; NaN is no label."""

    path: str

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Label values of a box, int64."""
        block = self.source.read(array, box)
        missing = np.isnan(block)
        right = (np.trunc(block) == block) & (np.abs(block) < 2.0**63)
        bad = block[~(right | missing)]
        if bad.size:
            raise InputError(
                f"{self.path}: expected labels as whole numbers of one channel, got {bad.flat[0]}"
            )
        found = np.where(missing, 0, block).astype(np.int64)
        found[missing] = UNLABELED
        return found


@dataclass(frozen=True)
class Instances(_Wrapped):
    """An instance mask as the classes background, object and border.

    Attributes
    ----------
    shape : of the image as stored
    width : of borders; 0 for none
    ignore : values of pixels without a label, which make no border
    """

    shape: tuple[int, ...]
    width: int
    ignore: tuple[int, ...]

    @property
    def names(self) -> tuple[tuple[int, str], ...]:
        """Names of the values."""
        every = ((BACKGROUND, "background"), (OBJECT, "object"), (BORDER, "border"))
        left = [BORDER] * (not self.width) + [BACKGROUND] * (0 in self.ignore)
        return tuple((value, name) for value, name in every if value not in left)

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Classes of a box, int64; read with a rim, so that they do not depend on the box."""
        outer: list[slice | int] = []
        inner: list[slice] = []
        for part, count in zip(box, self.shape, strict=True):
            if isinstance(part, slice):
                start, stop, _ = part.indices(count)
                first, last = max(0, start - self.width), min(count, stop + self.width)
                outer.append(slice(first, last))
                inner.append(slice(start - first, stop - first))
            else:
                outer.append(part)
        block = self.source.read(array, tuple(outer))
        unknown = is_one_of(block, (*self.ignore, UNLABELED))
        ground = block == 0
        found = np.where(ground, BACKGROUND, OBJECT).astype(np.int64)
        if self.width:
            found[_touching(block, unknown, self.width) & ~ground] = BORDER
        found[unknown] = UNLABELED
        return found[tuple(inner)]


def _touching(block: np.ndarray, unknown: np.ndarray, width: int) -> np.ndarray:
    """Where a value other than a pixel's own, and not unknown, is at most `width` pixels away."""
    from scipy import ndimage

    # the filters compute with float64, which cannot tell large values apart
    codes = np.unique(block, return_inverse=True)[1].reshape(block.shape).astype(np.int32) + 1
    size = 2 * width + 1
    most = ndimage.maximum_filter(np.where(unknown, 0, codes), size, mode="nearest")
    least = ndimage.minimum_filter(np.where(unknown, 2**31 - 1, codes), size, mode="nearest")
    return (most > codes) | (least < codes)


@dataclass(frozen=True)
class Gray(_Wrapped):
    """One channel of several that are equal, as tools write gray pictures as RGB.

    Attributes
    ----------
    axis, channels : of the array as stored
    """

    path: str
    axis: int
    channels: tuple[int, ...]

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Label values of a box."""
        block = self._channels(array, box)
        if not (block == block[..., :1]).all():
            raise InputError(
                f"{self.path}: expected a label image of one channel, or of three that are equal, "
                "got colors: name their classes with `colors`"
            )
        return block[..., 0]

    def _channels(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box, with the channels last."""
        whole = (*box[: self.axis], slice(None), *box[self.axis :])
        block = self.source.read(array, whole)
        axis = sum(isinstance(part, slice) for part in box[: self.axis])
        return np.moveaxis(block, axis, -1)[..., list(self.channels)]


@dataclass(frozen=True)
class Colored(Gray):
    """Colors as label values, 0xrrggbb.

    Attributes
    ----------
    names : of the colors that are classes; without any, every color is a value
    ignore : colors of pixels without a label
    """

    names: tuple[tuple[int, str], ...] = ()
    ignore: tuple[int, ...] = ()

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Label values of a box, int64."""
        found = _pack(self._channels(array, box))
        if self.names:
            known = [value for value, _ in self.names]
            bad = found[~np.isin(found, [*known, *self.ignore])]
            if bad.size:
                raise InputError(self._refusal(bad))
            found[np.isin(found, self.ignore)] = UNLABELED
        return found

    def _refusal(self, bad: np.ndarray) -> str:
        values, counts = np.unique(bad, return_counts=True)
        worst = int(values[counts.argmax()])
        known = [*self.names, *((value, "ignored") for value in self.ignore)]
        away, near, name = min((_distance(worst, value), value, name) for value, name in known)
        hint = ": lossy compression, as JPEG, changes colors" if away < 40 else ""
        return (
            f"{self.path}: expected the colors of `colors`, got {bad.size} pixels of others, such "
            f"as {_shown(worst)}, which is nearest to {name} ({_shown(near)}){hint}"
        )


def _pack(block: np.ndarray) -> np.ndarray:
    parts = block.astype(np.int64)
    return (parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2]


def _distance(color: int, other: int) -> int:
    return sum(abs(((color >> s) & 255) - ((other >> s) & 255)) for s in (0, 8, 16))


def _one_channel(labels: Image, meant: Meaning) -> Image:
    """A label image of several channels as one of one, if it is gray or its colors are named."""
    axis = labels.axes.index("c")
    channels = labels.channels or tuple(range(labels.stored_channels))
    refusal = (
        f"{labels.path}: expected a label image of one channel, got {len(channels)} channels "
        f"(shape {labels.shape})"
    )
    if len(channels) == 1:  # the others are alpha
        return _reading(labels, Gray(labels.reader, labels.path, axis, channels), labels.dtype)
    if len(channels) not in (2, 3, 4) or np.dtype(labels.dtype).kind not in "uib":
        raise InputError(refusal)
    colors = _look(labels)
    if len(channels) != 3:  # the last one is alpha, though the file does not say it
        if len({color[-1] for color in colors}) > 1:
            raise InputError(f"{refusal}; alpha, which differs from pixel to pixel, is no label")
        channels = channels[:-1]
        merged: Counter[tuple[int, ...]] = Counter()
        for color, count in colors.items():
            merged[color[:-1]] += count
        colors = merged
    gray = all(len(set(color)) == 1 for color in colors)
    reader: Gray
    if gray and not meant.colors:
        if len(channels) > 1:
            warnings.warn(
                f"{labels.path}: a gray picture stored as RGB, read as one channel",
                FileWarning,
                stacklevel=6,
            )
        reader, dtype = Gray(labels.reader, labels.path, axis, channels), labels.dtype
    elif np.dtype(labels.dtype) != np.uint8 or len(channels) != 3:
        raise InputError(refusal)
    elif meant.colors or meant.instances:
        names = tuple((_packed(color), name) for name, color in meant.colors)
        ignore = tuple(_packed(v) for v in meant.ignore if isinstance(v, str))
        reader = Colored(labels.reader, labels.path, axis, channels, names, ignore)
        dtype = "int64"
    else:
        raise InputError(_unnamed(labels.path, colors))
    return _reading(labels, reader, dtype)


def _reading(labels: Image, reader: Gray, dtype: str) -> Image:
    """The label image that a reader makes of several channels."""
    axis = reader.axis
    return dataclasses.replace(
        labels,
        reader=reader,
        dtype=dtype,
        axes=labels.axes.replace("c", ""),
        shape=labels.shape[:axis] + labels.shape[axis + 1 :],
        channels=None,
        shown=(),
        color=False,
    )


def _unnamed(path: str, colors: Counter[tuple[int, ...]]) -> str:
    """What to say of colors without classes."""
    if len(colors) > MOST:
        return (
            f"{path}: expected a label image of one channel, got {len(colors)} different colors: "
            "a picture, or label colors that lossy compression has changed"
        )
    total, few = colors.total(), colors.most_common(SHOWN)
    listed = ", ".join(f"{_hex(color)} ({100 * count / total:.3g} %)" for color, count in few)
    more = f" and {len(colors) - SHOWN} more" if len(colors) > SHOWN else ""
    ready = ",".join(f"class{i}={_hex(c)}" for i, (c, _) in enumerate(few, 1))
    return (
        f"{path}: expected a label image of one channel, got the colors {listed}{more}: name their "
        f"classes with `colors` {ready} (and leave colors out with `ignore` '#rrggbb'), or tell "
        "by `instances` that each is an object"
    )


def _look(labels: Image) -> Counter[tuple[int, ...]]:
    """The colors in some parts of an image, and how many pixels have them."""
    spans = [
        [slice(a, min(a + edge, n)) for a in range(0, n, edge)]
        for n, edge in zip(labels.grid, (*[1] * (len(labels.grid) - 2), EDGE, EDGE), strict=True)
    ]
    boxes: list[Box] = list(itertools.product(*spans))
    found: Counter[tuple[int, ...]] = Counter()
    for box in boxes[:: -(-len(boxes) // PARTS)]:
        block = image_files.read(labels, box)
        rows = np.ascontiguousarray(block.reshape(len(block), -1).T)
        if rows.dtype == bool:
            rows = rows.view(np.uint8)
        cells = rows.view([("", rows.dtype)] * rows.shape[1]).ravel()
        kinds, counts = np.unique(cells, return_counts=True)
        found.update(dict(zip(map(tuple, kinds.tolist()), counts.tolist(), strict=True)))
    return found
