"""Arrays and keywords of what is reached as ``tiledlaf.x``."""

import numpy as np
import pytest
import seeds
from damage import ODD
from hypothesis import strategies as st
from judge import fuzz, library, survives

TYPES = (
    *("bool", "int8", "uint8", ">u2", "uint16", "int32", "uint64", "float16", ">f4", "float32"),
    *("float64", "longdouble", "complex64", "object", "U3", "M8[s]"),
)
SHAPES = ((24, 30), (3, 24, 30), (24, 30, 3), (5, 24, 30), (1, 1), (0, 4), (7,), (), (2, 3, 24, 30))
VALUES = (0, 1, -1, 255, 1e-30, 1e30, 1e300, np.nan, np.inf, 2**53)
KEYWORDS = {
    "classes": (2, 3, 1, 0, -1, 2.0, "2", True, 300, 10**9, None, [2]),
    "neighborhood": (
        "3x3",
        "5x5",
        "1x1",
        "3x3x3",
        "1.5um",
        "1nm",
        "x",
        3,
        [[0, 0]],
        [[0]],
        [],
        [[0, 0], [0, 0]],
        {},
    ),
    "rho": (1, 0.5, 0, -1, 1e-300, 1e300, np.nan, np.inf, "1", [1], True, 10**400),
    "time": (1, 5, 0, -1, 50, np.nan, np.inf, "1", [1], 10**400),
    "region": (
        ((0, 9), (0, 9)),
        ((9, 0), (0, 9)),
        ((0, 9),),
        "x",
        5,
        ((0, 1e9), (0, 9)),
        (("a", 1),),
    ),
    "channels": ((0,), (0, 1), (), "a", 5, (None,), ((0,),), ("red",), (-1,), (0.5,), (True,)),
    "axes": ("yx", "xy", "cyx", "yxc", "zyx", "", "q", 5, ["y", "x"], "tyx", "tcyx"),
    "level": (0, 1, -1, "0", 0.5, True),
    "seed": (0, -1, 2**32, 2**70, "x", 0.5, None),
    "mask": (seeds.LABELS, seeds.LABELS > 0, seeds.LABELS.T, np.nan, "nowhere", "tissue", [[1]], 5),
    "probabilities": (seeds.PROBABILITIES, seeds.PROBABILITIES[:1], seeds.IMAGE, "nowhere", 5, []),
    "prototypes": ([[1], [9]], [[1, 2], [3, 4]], [1, 2], [], [["a"]], [[np.nan], [1]], 5, "x", {}),
    "weights": ("nowhere", 5, seeds.IMAGE),
    "model": ("nowhere", 5, "."),
    "term": ("nowhere", 5, "a:b", ""),
    "confidence": (True, False, "x", 5),
    "workers": (1, 2, 0, -1, "1", 1.0, True),
    "tile": (8, 16, 0, -1, 7, 1.5, "x", 10**9),
    "device": ("cpu", "cuda", "x", 5, None),
    "scheduler": ("threads", 5, ""),
    "no_data": (0, 255, -1, 1e300, np.nan, "x", None, [0]),
    "intensity_scale": (1, 0.5, 0, -1, np.nan, np.inf, "x", 1e300, 1e-300),
    "pixel_size": (1, 0, -1, "x", (1, 1), np.nan),
    "input_pixel_size": (1, 0, -1, "x", (1, 2), (1, 2, 3), np.nan, 1e-300),
    "time_point": (0, 1, -1, "all", "x", 0.5, True),
    "z": (0, 1, -1, "all", 0.5),
    "integrator": ("taylor", 5, None),
    "name": ("a", "", "../x", 5),
    "names": (["a", "b"], ["a"], "ab", [], 5, [None, 1], {"1": "a"}),
    "overwrite": (True, "x"),
    "painting": (None, 5, "x"),
    "progress": (5, "x"),
    "output": (5, "", b"x"),
}


@st.composite
def arrays(draw, usual=seeds.IMAGE):
    """An array of an odd type, shape, layout or with odd values; or no array."""
    how = draw(st.integers(0, 9))
    if how == 0:
        return draw(
            st.sampled_from((None, 5, "x", [], [[1, 2], [3]], {}, object(), b"x", usual.tolist()))
        )
    shape = usual.shape if draw(st.booleans()) else draw(st.sampled_from(SHAPES))
    made = np.resize(usual, shape).astype(np.float64)
    if made.size and draw(st.booleans()):
        made.flat[draw(st.integers(0, made.size - 1))] = draw(st.sampled_from(VALUES))
    if draw(st.integers(0, 7)) == 0:
        made[...] = draw(st.sampled_from(VALUES))
    if draw(st.integers(0, 3)) == 0:
        with np.errstate(over="ignore"):  # the largest values become infinite
            made = made * draw(st.sampled_from((1e-30, 1e30, -1, 1e-300)))
        made = made + draw(st.sampled_from((0, 1e9)))
    with np.errstate(all="ignore"):
        made = made.astype(draw(st.sampled_from((usual.dtype.str, *TYPES))))
    how = draw(st.sampled_from(("c", "c", "f", "strided", "read", "masked")))
    if how == "f":
        return np.asfortranarray(made)
    if how == "strided" and made.ndim:
        return np.repeat(made, 2, axis=-1)[..., ::2]
    if how == "read":
        made.setflags(write=False)
    return np.ma.masked_array(made) if how == "masked" else made


def _about(what, /, *given, **options):
    with np.printoptions(threshold=20, edgeitems=2):
        return f"{what}: {given!r:.400} {options!r:.400}"


@fuzz()
def test_label(data, trying):
    import tiledlaf

    draw = data.draw
    image = draw(arrays()) if draw(st.booleans()) else seeds.IMAGE
    options = {"classes": 2, "workers": 1}
    for _ in range(draw(st.integers(0 if image is not seeds.IMAGE else 1, 3))):
        key = draw(st.sampled_from(sorted(KEYWORDS)))
        options[key] = draw(st.sampled_from(KEYWORDS[key]))
    if any(options.get(k) is not None for k in ("model", "weights", "probabilities", "prototypes")):
        options.pop("classes", None) if draw(st.integers(0, 3)) else None
    output = options.pop("output", None)

    def call():
        found = tiledlaf.label(image, output, **options)
        parts = found if isinstance(found, tuple) else (found,)
        if isinstance(parts[0], np.ndarray):
            most = options.get("classes") or 300
            assert parts[0].dtype.kind == "u"
            assert parts[0].max(initial=0) <= most
        return found

    with trying() as folder:
        about = _about("label", image, output, **options)
        survives("label of arrays", library(call, about), folder, ("out",))


@fuzz()
def test_learning(data, trying):
    """Training and estimation by images and labels in memory."""
    import tiledlaf

    draw = data.draw
    image = draw(arrays()) if draw(st.booleans()) else seeds.IMAGE
    labels = draw(arrays(seeds.LABELS)) if draw(st.booleans()) else seeds.LABELS
    recipe = {"predictor_size": 2, "steps": 1}
    odd = {
        "neighborhood": KEYWORDS["neighborhood"],
        "time": KEYWORDS["time"],
        "rho": KEYWORDS["rho"],
        "tol": (1e-3, 0, -1, 1, np.nan, "x", 1e-300),
        "loss": ("cosine", "pixel-cosine", "cross-entropy", "x", 5, None),
        "predictor_size": (1, 0, -1, 2.5, "x", 10**9),
        "steps": (1, 0, -1, 1.5, "x"),
        "seed": KEYWORDS["seed"],
        "features": (None, "x", 5, []),
        "patience": (0, -1, "x", 1.5),
    }
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(sorted(odd)))
        recipe[key] = draw(st.sampled_from(odd[key]))
    terms = ("means", "means", "means", "probabilities", "x", 5, [[1], [2]], None, [[1, 2]], [])
    term = draw(st.sampled_from(terms))
    ignore = draw(st.sampled_from((None, None, None, 0, 1, (), "x", 0.5, [0, 1], -1)))
    names = draw(st.sampled_from((None, None, {"0": "a"}, ["a", "b"], 5, {0: "a", 1: "b"})))
    way = draw(st.sampled_from(("train", "estimate", "fit")))

    def call():
        if way == "fit":
            options = {k: v for k, v in recipe.items()}
            flow = tiledlaf.AssignmentFlow(term, ignore=ignore, names=names, workers=1, **options)
            return flow.fit([image, seeds.IMAGE], [labels, seeds.LABELS]).predict(seeds.IMAGE)
        given = tiledlaf.pair([image], [labels])
        with tiledlaf.open_pool(1, "threads") as pool:
            if way == "estimate":
                keys = ("neighborhood", "time", "rho", "tol", "loss", "steps")
                how = tiledlaf.Estimation(**{k: v for k, v in recipe.items() if k in keys})
                term_ = "means" if term == "probabilities" else term
                tiledlaf.estimate(
                    given[0], term_, "out.zarr", how, pool, ignore=ignore, names=names
                )
                return None
            own = tiledlaf.pair([seeds.IMAGE], [seeds.LABELS])
            learned = tiledlaf.Data(given, own, term, names, ignore)
            tiledlaf.train(learned, tiledlaf.Recipe(**recipe), pool, "out.model")
        return tiledlaf.label(seeds.IMAGE, model="out.model", workers=1)

    with trying() as folder:
        about = _about(way, image, labels, term=term, ignore=ignore, names=names, **recipe)
        survives(f"{way} of arrays", library(call, about), folder, ("out",))


@fuzz()
def test_evaluate(data, trying):
    import tiledlaf

    draw = data.draw
    labels = draw(arrays(seeds.LABELS)) if draw(st.booleans()) else seeds.LABELS
    truth = draw(arrays(seeds.LABELS)) if draw(st.booleans()) else seeds.LABELS
    odd = {
        "boundary": ("0", "1", "x", 5, ""),
        "ignore": (0, 1, [0, 1], "x", "#ff0000", 0.5, -1, [], 2**70),
        "instances": ("object", "object-border", "object-border:0", "x", 5),
        "colors": ({"a": "#ff0000"}, {"a": "x"}, [], 5, {"a": 5}, [("a", "#ff0000")], "x"),
        "names": ({0: "a", 1: "b"}, ["a"], "x", 5, {0: "a", 1: "a"}, {"x": "a"}, [5]),
        "values": ({0: [0], 1: [1]}, [[0], [0]], "x", 5, {0: 5}, [[0.5]], [["a"]]),
        "name": ("x", 5, ""),
    }
    options = {}
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(sorted(odd)))
        options[key] = draw(st.sampled_from(odd[key]))

    def call():
        found = tiledlaf.evaluate(labels, truth, **options)
        assert 0 <= found.error <= 1

    with trying() as folder:
        about = _about("evaluate", labels, truth, **options)
        survives("evaluate of arrays", library(call, about), folder)


@fuzz()
def test_flows(data, trying):
    """The numerics: distances and weights of any array."""
    import tiledlaf
    from tiledlaf import stencil

    draw = data.draw
    offsets = stencil.box(3, 3)
    distances = np.stack([np.abs(seeds.IMAGE - m).astype(float) for m in (40.0, 180.0)]) / 90
    weights = stencil.uniform(offsets, seeds.SIZE)
    distances = draw(arrays(distances)) if draw(st.booleans()) else distances
    weights = draw(arrays(weights)) if draw(st.integers(0, 3)) == 0 else weights
    time = draw(st.sampled_from(KEYWORDS["time"]))
    rho = draw(st.sampled_from(KEYWORDS["rho"]))
    kinds = (
        *(("Taylor", (1e-4,)), ("Krylov", (5,)), ("Euler", (3,)), ("RKMK4", (2,))),
        *(("GeometricEuler", (2,)), ("LinearizedSequence", ()), ("AdaptiveRKMK", ())),
        *(
            ("Taylor", (0,)),
            ("Taylor", ("x",)),
            ("Krylov", (0,)),
            ("Euler", (-1,)),
            ("Krylov", (2.5,)),
        ),
    )
    name, parameters = draw(st.sampled_from(kinds))

    def call():
        integrator = getattr(tiledlaf, name)(*parameters)
        found = tiledlaf.solve(
            weights, distances, offsets, rho=rho, time=time, integrator=integrator
        )
        return tiledlaf.assignment(found.z)

    with trying() as folder:
        about = _about(name, parameters, distances, weights, rho=rho, time=time)
        survives("flows of arrays", library(call, about), folder)


@fuzz(tries=60)
@pytest.mark.parametrize("name", ["Selection", "Painting", "Recipe", "Estimation", "load", "pair"])
def test_values(name, data, trying):
    """Values with odd fields, and functions of one argument."""
    import dataclasses
    import inspect

    import tiledlaf

    draw = data.draw
    kind = getattr(tiledlaf, name)
    if name in ("load", "pair"):
        keys = [
            k for k, p in inspect.signature(kind).parameters.items() if p.kind is not p.VAR_KEYWORD
        ]
        texts = [one for one in ODD if isinstance(one, str)]  # what is no path is a TypeError
        given = {key: draw(st.sampled_from(texts)) for key in keys[: 2 if name == "pair" else 1]}
    else:
        fields = [field.name for field in dataclasses.fields(kind)]
        given = {draw(st.sampled_from(fields)): draw(st.sampled_from(ODD))}
    call = library(lambda: kind(**given) and None, _about(name, **given))
    with trying() as folder:
        survives(f"values {name}", call, folder)
