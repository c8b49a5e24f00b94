"""The folder of suggestions: what it holds, and that nothing else is lost there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import InputError, OutputBelongsElsewhere, understood
from ..files import nodes, stores
from . import targets

LISTING = "suggested.json"
OURS = "tiledlaf, for suggestions"


@dataclass(frozen=True)
class Folder:
    """A folder in which suggestions may be written.

    Attributes
    ----------
    path : of the folder
    held : what earlier suggestions wrote there: hashes by the names of files, "" of a run that was
        cut
    """

    path: str
    held: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def check(cls, path: str | os.PathLike[str], overwrite: bool) -> Folder:
        """Refuse a folder where nothing can be written, or that holds anything else.

        Raises
        ------
        ValueError
            Says what is there; also if earlier suggestions are, and are not to be replaced, or if
            one of their files was changed since, as by annotations.
        """
        with understood("output", path, "a path"):
            path = os.fspath(path)
        _check_place(path)
        if not os.path.isdir(path) or not os.listdir(path):
            return cls(path)
        held = _held(path)
        if not overwrite:
            raise InputError(
                f"{path}: expected a new folder, got earlier suggestions (`overwrite` replaces "
                "them, or choose another `output`)"
            )
        for name, known in held.items():
            file = os.path.join(path, name)
            if known and os.path.lexists(file) and _hash(file) != known:
                raise InputError(
                    f"{file}: changed since it was written, as by annotations: expected it as it "
                    "was to replace it, move it elsewhere"
                )
        return cls(path, held)

    def check_names(self, names: Sequence[str], count: int) -> None:
        """Refuse what others have put where windows of these images may be written.

        Raises
        ------
        ValueError
            Names the first such file.
        """
        taken = set(os.listdir(self.path) if os.path.isdir(self.path) else ()) - set(self.held)
        for name in names:
            for one in (f"{name}.geojson", *(f"{name}-{n + 1}.png" for n in range(count))):
                if one in taken:
                    raise OutputBelongsElsewhere(
                        f"{os.path.join(self.path, one)}: expected no such file, got one that "
                        "earlier suggestions have not written"
                    )

    @contextmanager
    def begun(self, paths: Iterable[str]) -> Iterator[Callable[[str, bytes], None]]:
        """Replace what is held by files that the function it yields puts there.

        Parameters
        ----------
        paths : of all the files
        """
        os.makedirs(self.path, exist_ok=True)
        hashes = {**self.held, **{os.path.basename(path): "" for path in paths}}
        self._note(hashes)  # first: a run that is cut leaves nothing that is nobody's
        for name in self.held:
            file = os.path.join(self.path, name)
            if os.path.lexists(file):
                os.unlink(file)
        made: dict[str, str] = {}

        def put(path: str, content: bytes) -> None:
            made[os.path.basename(path)] = hashlib.sha256(content).hexdigest()
            with targets.written(path) as part, open(part, "wb") as file:
                file.write(content)

        yield put
        self._note(made)

    def _note(self, hashes: Mapping[str, str]) -> None:
        text = json.dumps({"made by": OURS, "files": dict(hashes)}, indent=1)
        path = os.path.join(self.path, LISTING)
        with targets.written(path, overwrite=True) as part, open(part, "w") as file:
            file.write(text + "\n")


def _check_place(path: str) -> None:
    if not path:
        raise InputError("`output`: expected a folder, got an empty text")
    if stores.is_url(path):
        raise InputError(f"`output` {path}: expected a folder on this machine, got a URL")
    above = stores.nearest_existing(path)
    if not above.is_dir():
        raise InputError(f"`output` {path}: expected a folder, got a file")
    if nodes.is_store(path):
        raise InputError(f"`output` {path}: expected a folder for suggestions, got a Zarr store")
    if not os.access(above, os.W_OK):
        raise InputError(f"`output` {path}: expected a place to write, but {above} is read-only")


def _held(path: str) -> dict[str, str]:
    """The files that earlier suggestions have written, by the listing of their folder."""
    try:
        with open(os.path.join(path, LISTING), "rb") as file:
            found = json.load(file)
        # names alone: a list is no way to what lies elsewhere
        if found["made by"] == OURS and all(os.path.basename(n) == n for n in found["files"]):
            return {str(name): str(known) for name, known in found["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise OutputBelongsElsewhere(
        f"{path}: expected a new or empty folder, got one with files that are no suggestions"
    )


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
