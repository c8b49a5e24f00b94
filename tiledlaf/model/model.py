"""A trained model as one file: a zip of plain arrays and JSON, without any code."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import redaction
from ..errors import DamagedFile, InputError
from ..flow.linear import Taylor, check_time
from ..flow.stencil import fit
from . import classes, terms
from .classes import Class, classes_from
from .features import Features
from .predictor import Predictor
from .settings import Settings
from .terms import DataTerm

if TYPE_CHECKING:
    from ..files.selection import Selection  # which loads zarr

VERSION = 1
FORMAT = "tiledlaf model"
# arrays of a predictor, and their names in files
PARTS = {"mean": "mean", "scale": "scale", "anchors": "prototypes", "patches": "patches"}


@dataclass(frozen=True)
class Images:
    """What the images of a training were like.

    Attributes
    ----------
    pixel_size : micrometers along y and x, or None if not known
    dtype : NumPy name of the pixels' type, "" if not known
    range : intensities of all but a thousandth of the pixels, or None if not known
    level : the level that was read of files without a pixel size
    names : of the channels, or none if not all are known
    """

    pixel_size: tuple[float, float] | None = None
    dtype: str = ""
    range: tuple[float, float] | None = None
    level: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def from_entry(cls, entry: Any) -> Images:
        """The images of a model file; those of earlier versions say nothing of them."""
        if entry is None:
            return cls()
        size, span = (
            None if entry[key] is None else (float(entry[key][0]), float(entry[key][1]))
            for key in ("pixel_size", "range")
        )
        if size is not None and not all(0 < value < math.inf for value in size):
            raise InputError(f"expected positive pixel sizes, got {size}")
        if span is not None and not all(map(math.isfinite, span)):
            raise InputError(f"expected a finite range of intensities, got {span}")
        level = entry.get("level", 0)
        if not isinstance(level, int) or level < 0:
            raise InputError(f"expected a level of 0 or more, got {level!r}")
        names = tuple(map(str, entry.get("names", ())))
        return cls(size, np.dtype(entry["dtype"]).name, span, level, names)


@dataclass(frozen=True, eq=False)
class Model:
    """All that labeling needs of a training.

    Attributes
    ----------
    classes : in the order of the labels 1..J
    term : data term
    offsets, rho, time, tol : settings of the flow
    channels : number of channels of the training images
    predictor : Predictor, or None for uniform weights
    bias : J numbers, added to log W0 + Z(T) before argmax
    trained : how it was trained, as JSON
    images : what the training images were like
    """

    classes: tuple[Class, ...]
    term: DataTerm
    offsets: tuple[tuple[int, ...], ...]
    rho: float
    time: float
    tol: float
    channels: int
    predictor: Predictor | None
    bias: tuple[float, ...]
    trained: Mapping[str, Any] = field(default_factory=dict)
    images: Images = Images()

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return [one.name for one in self.classes]

    def select(self, selection: Selection) -> Selection:
        """What to read of an image: where nothing else is asked, pixels as in the training."""
        size, level = self.images.pixel_size, self.images.level or None
        if selection.level is not None or selection.pixel_size is not None:
            return selection
        if size is not None:
            level = None
        return dataclasses.replace(selection, pixel_size=size, level=level, learned=True)

    def settings(self, device: str = "cpu") -> Settings:
        """How labels are made with this model."""
        return Settings(
            self.offsets,
            self.rho,
            self.time,
            Taylor(self.tol),
            device,
            predictor=self.predictor,
            bias=self.bias,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The model as plain arrays, with everything else as JSON in "model"."""
        entry, parts = terms.term_parts(self.term)
        about = {
            "format": FORMAT,
            "version": VERSION,
            "classes": classes.entries(self.classes),
            "offsets": [list(o) for o in self.offsets],
            "rho": self.rho,
            "time": self.time,
            "tol": self.tol,
            "channels": self.channels,
            "bias": list(self.bias),
            "term": entry,
            "predictor": None
            if self.predictor is None
            else {
                "features": self.predictor.features.to_list(),
                "count": len(self.predictor.mean),
                "sigma": self.predictor.sigma,
            },
            "trained": dict(self.trained),
        }
        if self.images != Images():
            about["images"] = dataclasses.asdict(self.images)
        found = {"model": np.array(json.dumps(about, sort_keys=True))}
        found |= {f"term/{k}": v for k, v in parts.items()}
        if self.predictor is not None:
            for key, name in PARTS.items():
                found[f"predictor/{name}"] = getattr(self.predictor, key)
        return found

    def fingerprint(self) -> str:
        """SHA-256 of all that labels depend on."""
        found = self.arrays()
        about = json.loads(str(found.pop("model")))
        del about["trained"]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for key in sorted(found):
            digest.update(key.encode() + np.ascontiguousarray(found[key]).tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, atomically and at exactly this path."""
        write_arrays(path, self.arrays())


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model and check it completely.

    Raises
    ------
    ValueError
        If the file is not a model, has another version, is damaged, or its parts do not match.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import tiledlaf
    >>> from tiledlaf.model.classes import Class
    >>> from tiledlaf.model.terms import Prototypes
    >>> classes = (Class("dark", (0,)), Class("bright", (1,)))
    >>> term, box = Prototypes(((10.0,), (200.0,)), 90.0), tiledlaf.stencil.box(3, 3)
    >>> model = tiledlaf.Model(classes, term, box, 1.0, 1.0, 1e-3, 1, None, (0.0, 0.0))
    >>> path = Path(tempfile.mkdtemp()) / "two.model"
    >>> model.save(path)
    >>> tiledlaf.load(path).names
    ['dark', 'bright']
    """
    arrays = read_arrays(path, FORMAT)
    try:
        return _model(arrays)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise DamagedFile(f"{path}: expected a complete model, {what}") from None


def _model(arrays: dict[str, np.ndarray]) -> Model:
    about = json.loads(str(arrays["model"]))
    if about["format"] != FORMAT:
        raise InputError(f"expected the format {FORMAT!r}, got {about['format']!r}")
    if about["version"] != VERSION:
        raise InputError(f"expected version {VERSION}, got {about['version']}")
    classes = classes_from(about["classes"])
    offsets = fit(about["offsets"], len(about["offsets"][0]))
    check_time(about["time"])
    Taylor(about["tol"])
    bias = tuple(map(float, about["bias"]))
    term = terms.term_from(
        about["term"], {k[5:]: v for k, v in arrays.items() if k.startswith("term/")}
    )
    for what, count in (("term", term.classes), ("bias", len(bias))):
        if count != len(classes) or count < 2:
            raise InputError(f"expected a {what} of {len(classes)} classes, got {count}")
    if not (0 < about["rho"] < math.inf and np.isfinite(bias).all()):
        raise InputError("expected a positive rho and finite biases")
    channels = about["channels"]
    if not isinstance(channels, int) or channels < 1:
        raise InputError(f"expected 1 or more channels, got {channels!r}")
    if not isinstance(about["trained"], dict):
        raise InputError(f"expected notes on the training, got {about['trained']!r}")
    if not term.takes_probabilities:
        term.check(channels)
    found = None
    if about["predictor"] is not None:
        found = _predictor(about, arrays, len(classes), len(offsets))
    return Model(
        classes,
        term,
        offsets,
        float(about["rho"]),
        float(about["time"]),
        float(about["tol"]),
        channels,
        found,
        bias,
        about["trained"],
        Images.from_entry(about.get("images")),
    )


def _predictor(
    about: Mapping[str, Any], arrays: Mapping[str, np.ndarray], classes: int, neighbors: int
) -> Predictor:
    entry = about["predictor"]
    features = Features.from_list(entry["features"])
    parts = {key: arrays[f"predictor/{name}"] for key, name in PARTS.items()}
    for key, value in parts.items():
        if value.dtype != np.float64 or not np.isfinite(value).all():
            raise InputError(f"expected finite float64 numbers as {key}, got {value.dtype}")
    sigma = float(entry["sigma"])
    if not (0 < sigma < math.inf and (parts["scale"] > 0).all()):
        raise InputError(f"expected a positive sigma and scale of features, got sigma {sigma}")
    found = Predictor(features, **parts, sigma=sigma)
    count = features.count(about["channels"], 1 if classes == 2 else classes)
    if len(found.mean) != count or entry["count"] != count:
        raise InputError(f"expected {count} features, got {len(found.mean)}")
    if found.patches.shape[1] != neighbors:
        raise InputError(f"expected patches of {neighbors}, got {found.patches.shape[1]}")
    return found


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an npz, atomically; the same arrays give the same bytes."""
    whole = os.fspath(path)
    # a unique name: two trainings may write the same model at the same time
    partial = f"{whole}.{uuid.uuid4().hex}.partial"
    try:
        with open(partial, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for key in sorted(arrays):
                    content = io.BytesIO()
                    value = np.asanyarray(arrays[key])
                    np.lib.format.write_array(content, value, allow_pickle=False)
                    # numpy.savez would write a time stamp into the file
                    entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
                    archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, whole)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
        raise


def read_arrays(path: str | os.PathLike[str], what: str) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote.

    Raises
    ------
    ValueError
        If the file does not exist, is of another kind or is damaged.
    """
    redaction.check(path)
    if os.path.isdir(path):
        raise InputError(f"{path}: expected a {what}, got a folder")
    if os.path.exists(path) and not zipfile.is_zipfile(path):
        raise DamagedFile(f"{path}: expected a {what}, got another kind of file or a part of one")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive may raise anything
        raise DamagedFile(f"{path}: expected a {what}, {type(error).__name__}: {error}") from None
