"""Fingerprints of settings and inputs, and where two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..errors import OutputBelongsElsewhere

# settings that stand for the names, sizes and times of files
HASHED = ("input", "probabilities", "mask", "model", "weights")


def fingerprint(entries: Mapping[str, Any]) -> str:
    """Return the SHA-256 of settings and inputs."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them: arrays and other sequences are lists."""

    def listed(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else list(value)

    found: dict[str, Any] = json.loads(json.dumps(settings, default=listed))
    return found


def refuse_difference(
    problem: str, held: Mapping[str, Any], asked: Mapping[str, Any], advice: str
) -> None:
    """Raise a ValueError that shows where two configurations differ, if they do."""
    keys = [k for k in sorted({*held, *asked}) if held.get(k) != asked.get(k)]
    if keys:
        there, here = (
            ", ".join(f"{k} {_short(k, entries.get(k))}" for k in keys) for entries in (held, asked)
        )
        raise OutputBelongsElsewhere(f"{problem}: it has {there}; this run has {here} ({advice})")


def _short(key: str, value: Any) -> str:
    if key in HASHED and value:
        return str(value)[:8]
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
