"""Strategies for damaged files: bytes, lines and JSON that begin as valid ones."""

import copy
import json

from hypothesis import strategies as st

DEEP, LONG = "@deep@", "@long@"  # what no encoder writes: see `text_of`
TWICE = "@twice@"
TEXTS = [
    *("", " ", "x", "0", "1.5", "-1", "nan", "1e400", "yx", "../x", "/", "a/b", "\x00", "\x1b[31m"),
    *("a\nb", "é", "\U0001f600", "[1]", "{}", "<u2", "|O", "bytes", "micrometer", "#ff0000"),
    "long " * 1000,
]
ODD = [
    *(None, True, False, 0, 1, -1, 2, 3, 255, 256, 65536, 2**31, 2**32 - 1, 2**53, 2**63, 2**64),
    *(-(2**31), 0.5, -0.5, -0.0, 1e-320, 1e308, -1e308, float("inf"), float("nan")),
    *([], {}, [[]], [None], [0], [1, 1], ["x"], {"a": 1}, {"name": 1}, [{}], [1e308, 1e308]),
    *(DEEP, LONG, *TEXTS),
]


def json_values():
    """Values that stand nowhere where they are expected."""
    return st.sampled_from(ODD).map(copy.deepcopy)


@st.composite
def edited(draw, document, most=2):
    """A JSON document of which one or two values are replaced, removed, repeated or moved."""
    found = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(found))
        if not places:
            return draw(json_values())
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(("odd", "odd", "odd", "gone", "twice", "moved", "near", "in")))
        value = holder[key]
        if how == "gone":
            del holder[key]
        elif how == "twice" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        elif how == "twice":
            holder[f"{TWICE}{key}"] = draw(json_values())
        elif how == "moved":
            other, name = places[draw(st.integers(0, len(places) - 1))]
            holder[key] = copy.deepcopy(other[name]) if name in _keys(other) else None
        elif how == "in":
            holder[key] = draw(st.sampled_from(([value], {"x": value}, str(value))))
        elif how == "near" and isinstance(value, int | float) and not isinstance(value, bool):
            near = (value + 1, value - 1, -value, value * 1000, value / 2, float(value))
            holder[key] = draw(st.sampled_from(near))
        else:
            holder[key] = draw(json_values())
    return found


def _keys(holder):
    return range(len(holder)) if isinstance(holder, list) else holder


def _places(document):
    for key in list(_keys(document)) if isinstance(document, list | dict) else ():
        yield document, key
        yield from _places(document[key])


def text_of(document):
    """JSON text of an edited document, with nesting, numbers and doubled names of no encoder."""
    text = json.dumps(document)
    text = text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
    return text.replace(f'"{LONG}"', "1" * 5000).replace(f'"{TWICE}', '"')


@st.composite
def damaged(draw, data, most=3):
    """Bytes that are cut, flipped, overwritten, repeated or filled with others."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        size = len(found)
        head = draw(st.booleans())  # most of what can go wrong stands there
        place = draw(st.integers(0, max(0, min(size, 400) - 1 if head else size - 1)))
        how = draw(
            st.sampled_from(("flip", "flip", "byte", "number", "cut", "gone", "twice", "in"))
        )
        if how == "flip" and size:
            found[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "byte" and size:
            found[place] = draw(st.sampled_from((0, 1, 127, 128, 255, 32, 48)))
        elif how == "number":
            number = draw(st.sampled_from((0, 1, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63)))
            order = draw(st.sampled_from(("little", "big")))
            part = number.to_bytes(8, order)
            part = part[:4] if order == "little" else part[4:]
            found[place : place + 4] = part
        elif how == "cut":
            del found[place:]
        elif how == "gone":
            del found[place : place + draw(st.integers(1, 64))]
        elif how == "twice":
            found[place:place] = found[place : place + draw(st.integers(1, 64))]
        else:
            found[place:place] = draw(st.binary(min_size=1, max_size=16))
    return bytes(found)


@st.composite
def retyped(draw, text, separator=","):
    """Lines of which cells or whole ones are replaced, removed, cut, repeated or moved."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        how = draw(st.sampled_from(("cell", "cell", "cut", "gone", "twice", "line", "none")))
        if not lines:
            break
        if how == "cell":
            cells = lines[place].split(separator)
            cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from(TEXTS))
            lines[place] = separator.join(cells)
        elif how == "cut":
            lines[place] = lines[place][: draw(st.integers(0, max(0, len(lines[place]))))]
        elif how == "gone":
            del lines[place]
        elif how == "twice":
            lines.insert(draw(st.integers(0, len(lines))), lines[place])
        elif how == "line":
            lines[place] = draw(st.sampled_from(TEXTS))
        else:
            lines = []
    return draw(st.sampled_from(("\n", "\n", "\r\n", "\r"))).join(lines)
