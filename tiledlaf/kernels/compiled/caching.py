"""What Numba compiles is kept for the next process, wherever there is a place for it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

from numba import config, njit
from numba.core.caching import FunctionCache

from ... import private


class Cache(FunctionCache):
    """Numba's cache, but a file that is damaged or cannot be written only costs compiling again."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled before; None if there is nothing that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever a cut file makes of pickle, or of LLVM
            logging.getLogger(__name__).debug("%s: %s", self.cache_path, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, unless the disk is full or the folder is gone."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # an index that was cut is read before it is written
            logging.getLogger(__name__).debug("%s: %s", self.cache_path, error)


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function that releases the GIL and treats numbers as NumPy does."""
    compiled = njit(nogil=True, error_model="numpy")(function)
    if hasattr(compiled, "_cache"):  # else Numba is told not to compile
        cache = _cache(function)
        if cache is not None:
            compiled._cache = cache
    return compiled


def _cache(function: Callable[..., Any]) -> Cache | None:
    """A cache where Numba would have it, else in a temporary folder that is the user's own.

    Numba finds none where neither the package nor the home can be written to.
    """
    with contextlib.suppress(RuntimeError):
        return Cache(function)
    before = config.CACHE_DIR
    with contextlib.suppress(RuntimeError, OSError):
        config.CACHE_DIR = os.path.join(private.folder(), "numba")
        try:
            return Cache(function)
        finally:
            config.CACHE_DIR = before
    return None
