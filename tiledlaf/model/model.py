"""A trained model as one file: a zip of plain arrays and JSON, without any code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DamagedFile, InputError, NewerFormat
from ..files import versions
from ..flow.linear import Taylor, check_time
from ..flow.stencil import fit
from . import arrays as files
from . import classes, terms
from .calibration import Calibration
from .classes import Class
from .entries import FAR, LARGE, ImagesEntry, ModelEntry, TrainedEntry
from .features import Features, odds_planes
from .predictor import Predictor
from .settings import Settings
from .term import DataTerm

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
    quantiles : of the intensities of each image, for each channel, at `intensity.PERCENTILES`
    """

    pixel_size: tuple[float, float] | None = None
    dtype: str = ""
    range: tuple[float, float] | None = None
    level: int = 0
    names: tuple[str, ...] = ()
    quantiles: tuple[tuple[tuple[float, ...], ...], ...] = ()

    @classmethod
    def from_entry(cls, entry: ImagesEntry | None) -> Images:
        """The images of a model file; those of earlier versions say nothing of them."""
        if entry is None:
            return cls()
        dtype = entry.dtype and np.dtype(entry.dtype).name
        quantiles = tuple(map(tuple, entry.quantiles))
        return cls(entry.pixel_size, dtype, entry.range, entry.level, tuple(entry.names), quantiles)

    def to_entry(self) -> dict[str, Any]:
        """What model files hold; without quantiles, what those of earlier versions do."""
        found = dataclasses.asdict(self)
        return found if self.quantiles else {k: v for k, v in found.items() if k != "quantiles"}


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
    calibration : of the confidence; None: it stays the share of the winning class
    folds : data terms fitted without one fold each, for `suggest`; labels do not depend on them
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
    calibration: Calibration | None = None
    folds: tuple[DataTerm, ...] = ()

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
            calibration=self.calibration,
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
            about["images"] = self.images.to_entry()
        if self.calibration is not None:
            about["calibration"] = self.calibration.to_entry()
        found = {f"term/{k}": v for k, v in parts.items()}
        if self.folds:
            folds = [terms.term_parts(one) for one in self.folds]
            about["folds"] = [entry for entry, _ in folds]
            for i, (_, parts) in enumerate(folds):
                found |= {f"folds/{i}/{k}": v for k, v in parts.items()}
        found["model"] = np.array(json.dumps(about, sort_keys=True))
        if self.predictor is not None:
            for key, name in PARTS.items():
                found[f"predictor/{name}"] = getattr(self.predictor, key)
        return found

    def fingerprint(self) -> str:
        """SHA-256 of all that labels depend on."""
        found = dataclasses.replace(self, folds=()).arrays()
        about = json.loads(str(found.pop("model")))
        del about["trained"]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for key in sorted(found):
            digest.update(key.encode() + np.ascontiguousarray(found[key]).tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, atomically and at exactly this path."""
        files.write_arrays(path, self.arrays())


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
    arrays = files.read_arrays(path, FORMAT)
    try:
        return _model(arrays, os.fspath(path))
    except NewerFormat:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise DamagedFile(f"{path}: expected a complete model, {what}") from None


def _model(arrays: dict[str, np.ndarray], path: str) -> Model:
    raw = files.raw_entry(arrays, "model")
    if raw["format"] != FORMAT:
        raise InputError(f"expected the format {FORMAT!r}, got {raw['format']!r}")
    versions.check(f"{path}: this model", raw["version"], VERSION)
    about = files.convert(raw, ModelEntry)
    files.convert(about.trained, TrainedEntry)
    count = len(about.classes)
    offsets = fit(about.offsets, len(about.offsets[0]))
    check_time(about.time)
    Taylor(about.tol)
    term = _term(about, about.term, arrays, "term/").located(path, "term/")
    folds = tuple(_term(about, e, arrays, f"folds/{i}/") for i, e in enumerate(about.folds))
    if any(one.takes_probabilities != term.takes_probabilities for one in folds):
        raise InputError("expected terms of the folds that are computed from what the term is")
    if len(about.bias) != count:
        raise InputError(f"expected a bias of {count} classes, got {len(about.bias)}")
    return Model(
        classes.classes_from(about.classes),
        term,
        offsets,
        about.rho,
        about.time,
        about.tol,
        about.channels,
        _predictor(about, arrays, len(offsets)),
        tuple(about.bias),
        about.trained,
        Images.from_entry(about.images),
        Calibration.from_entry(about.calibration),
        folds,
    )


def _term(
    about: ModelEntry, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray], prefix: str
) -> DataTerm:
    """A data term whose arrays have a prefix, for the model's classes and channels."""
    count = len(about.classes)
    parts = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    found = terms.term_from(entry, parts)
    if found.classes != count:
        raise InputError(f"expected a term of {count} classes, got {found.classes}")
    found.check(about.channels)
    return found


def _predictor(
    about: ModelEntry, arrays: Mapping[str, np.ndarray], neighbors: int
) -> Predictor | None:
    entry = about.predictor
    if entry is None:
        return None
    features = Features.from_list(entry.features)
    parts = {key: arrays[f"predictor/{name}"] for key, name in PARTS.items()}
    for key, value in parts.items():
        if value.dtype != np.float64 or not (abs(value) <= LARGE).all():
            raise InputError(f"expected finite float64 numbers as {key}, got {value.dtype}")
    if not (parts["scale"] >= 1 / LARGE).all():
        raise InputError("expected a positive scale of features")
    found = Predictor(features, **parts, sigma=entry.sigma)
    # squares of what is compared fit into float32
    if not max(abs(found.anchors).max(), (abs(found.mean) / found.scale).max()) <= FAR:
        raise InputError(f"expected anchors and means within {FAR:g} deviations")
    count = features.count(about.channels, odds_planes(len(about.classes)))
    if len(found.mean) != count or entry.count != count:
        raise InputError(f"expected {count} features, got {len(found.mean)}")
    if found.patches.shape[1] != neighbors:
        raise InputError(f"expected patches of {neighbors}, got {found.patches.shape[1]}")
    return found
