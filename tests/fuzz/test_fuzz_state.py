"""What this program has written itself, damaged: models, checkpoints, weights, outputs, records."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import judge
import numpy as np
import pytest
import seeds
from damage import ODD, damaged, edited, text_of
from hypothesis import strategies as st
from judge import command, fuzz, labels_of, survives

QUICK = ("--scheduler", "threads", "--workers", "1")
JUDGED = ("--validation-images", "own.npy", "--validation-labels", "labels.npy")
LEARN = ("train", "out.model", "--images", "own.npy", "--labels", "labels.npy", "--size", "2")
LEARN = (*LEARN, "--steps", "12", *JUDGED, *QUICK)
WRITES = ("out",)
RECORDS = "out.zarr/labels/tiledlaf/0/tiledlaf.jsonl"


def _own(folder):
    np.save(f"{folder}/own.npy", np.tile(seeds.IMAGE, (2, 2)))
    np.save(f"{folder}/labels.npy", np.tile(seeds.LABELS, (2, 2)))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with a model of each kind, weights, a checkpoint and an output."""
    folder = tmp_path_factory.mktemp("made")
    _own(folder)

    def make():
        learn = ("train", "--images", "own.npy", "--labels", "labels.npy", *JUDGED, *QUICK)
        learn = (*learn, "--size", "2", "--steps", "12")
        calls = [
            (*learn, "means.model"),
            (*learn, "trees.model", "--classifier"),
            ("estimate", "own.npy", "labels.npy", "weights.zarr", "--steps", "2", *QUICK),
            ("label", "own.npy", "out.zarr", "--classes", "2", "--tile", "16", *QUICK),
        ]
        for call in calls:
            assert command(*call)() == 0
        _cut_training()
        return 0

    status, _ = judge.forked(make, folder, 600)
    assert status == 0, Path(folder, "home", "stderr").read_text()
    shutil.rmtree(folder / "home")
    return folder


def _cut_training():
    """Leave the checkpoint of a training that was interrupted, and not its model."""
    from tiledlaf.training import checkpoint

    def interrupted(*rest):
        raise KeyboardInterrupt

    finish, checkpoint.Checkpoint.finish = checkpoint.Checkpoint.finish, interrupted
    assert command(*LEARN)() == 130
    checkpoint.Checkpoint.finish = finish
    assert Path("out.model.checkpoint").exists()


def _arrays(path):
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def _packed(path, arrays):
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in arrays.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, value, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), file.getvalue())


@st.composite
def _changed(draw, arrays):
    """Arrays of which one is another, or a text of JSON in them is edited."""
    found = dict(arrays)
    texts = [key for key, value in found.items() if value.dtype.kind == "U" and value.ndim == 0]
    key = draw(st.sampled_from(texts if texts and draw(st.booleans()) else sorted(found)))
    value = found[key]
    if key in texts:
        try:
            found[key] = np.array(text_of(draw(edited(json.loads(str(value))))))
        except ValueError:
            found[key] = np.array("")
        return found
    how = draw(st.sampled_from(("gone", "shape", "type", "value", "value", "more")))
    if how == "gone":
        del found[key]
    elif how == "shape":
        shapes = (
            value[None],
            value.reshape(-1),
            value[:0] if value.ndim else value,
            value[..., None],
        )
        found[key] = draw(st.sampled_from(range(4)).map(lambda n: shapes[n]))
    elif how == "type":
        kind = draw(st.sampled_from(("f4", "f8", ">f8", "i8", "u1", "b1", "c16", "U3", "M8[s]")))
        with np.errstate(all="ignore"):
            found[key] = value.astype(kind) if value.dtype.kind != "U" else np.zeros(3, kind)
    elif how == "value" and value.size and value.dtype.kind in "fiu":
        other = value.copy()
        numbers = (0, 1, -1, 2**31 - 1, 1e308, np.nan, np.inf)
        place = draw(st.integers(0, value.size - 1))
        with np.errstate(all="ignore"):
            other.flat[place] = np.array(draw(st.sampled_from(numbers))).astype(value.dtype)
        found[key] = other
    else:
        found[draw(st.sampled_from(("more", "model", "x" * 300)))] = np.zeros(3)
    return found


@fuzz()
@pytest.mark.parametrize("name", ["means.model", "trees.model", "out.model.checkpoint"])
def test_models(name, data, trying, made):
    draw = data.draw
    with trying() as folder:
        _own(folder)
        path = f"{folder}/{name}"
        if draw(st.integers(0, 3)):
            _packed(path, draw(_changed(_arrays(made / name))))
        else:
            Path(path).write_bytes(draw(damaged((made / name).read_bytes())))
        if name.endswith("checkpoint"):
            calls = [command(*LEARN), command("status", "out.model"), command(*LEARN)]
        else:
            label = ("label", "own.npy", "out.zarr", "--model", name, *QUICK)
            calls = [
                command("info", name),
                command("status", name),
                command("explain", name, "out.html"),
                command(*label, then=labels_of("out.zarr")),
                command(*label, then=labels_of("out.zarr")),
            ]
        survives(f"models {name}", draw(st.sampled_from(calls)), folder, WRITES)


@fuzz()
def test_weights(data, trying, made):
    draw = data.draw
    with trying() as folder:
        _own(folder)
        shutil.copytree(made / "weights.zarr", f"{folder}/weights.zarr")
        _damage(draw, seeds.files(f"{folder}/weights.zarr"))
        label = ("label", "own.npy", "out.zarr", "--weights", "weights.zarr", *QUICK)
        calls = [
            command(*label, then=labels_of("out.zarr")),
            command("info", "weights.zarr"),
            command("explain", "weights.zarr", "out.html"),
        ]
        survives("weights", draw(st.sampled_from(calls)), folder, WRITES)


def _damage(draw, files):
    about = [path for path in files if path.suffix == ".json"]
    path = draw(st.sampled_from(about if draw(st.booleans()) else files))
    if path in about and draw(st.integers(0, 3)):
        path.write_text(text_of(draw(edited(json.loads(path.read_bytes())))))
    elif draw(st.booleans()):
        path.write_bytes(draw(damaged(path.read_bytes())))
    else:
        path.unlink()


def _outputs(draw):
    """A command on an output that is there."""
    label = ("label", "own.npy", "out.zarr", "--classes", "2", "--tile", "16", *QUICK)
    calls = [
        command(*label, then=labels_of("out.zarr")),
        command(*label, then=labels_of("out.zarr")),
        command(*label, "--overwrite", then=labels_of("out.zarr")),
        command("status", "out.zarr"),
        command("status", "out.zarr", "--picture", "out.png"),
        command("info", "out.zarr"),
        command("evaluate", "out.zarr", "labels.npy"),
    ]
    return draw(st.sampled_from(calls))


@fuzz()
def test_outputs(data, trying, made):
    """Outputs whose metadata or pixels are damaged or gone."""
    draw = data.draw
    with trying() as folder:
        _own(folder)
        shutil.copytree(made / "out.zarr", f"{folder}/out.zarr")
        _same_time(made, folder)
        _damage(draw, [p for p in seeds.files(f"{folder}/out.zarr") if p.suffix != ".jsonl"])
        survives("outputs", _outputs(draw), folder, WRITES)


def _same_time(made, folder):
    shutil.copystat(made / "own.npy", f"{folder}/own.npy")


@fuzz()
def test_records(data, trying, made):
    draw = data.draw
    with trying() as folder:
        _own(folder)
        shutil.copytree(made / "out.zarr", f"{folder}/out.zarr")
        _same_time(made, folder)
        path = Path(folder, RECORDS)
        if draw(st.integers(0, 3)):
            lines = path.read_text().splitlines()
            for _ in range(draw(st.integers(1, 3))):
                place = draw(st.integers(0, len(lines) - 1))
                line = text_of(draw(edited(json.loads(lines[place]))))
                lines.insert(draw(st.integers(0, len(lines))), line)
                if draw(st.booleans()):
                    lines[place] = line
                lines = [one for one in lines if one.startswith("{")][:60] or ["{}"]
                lines = [one if _is_json(one) else "{}" for one in lines]
            lines[0] = lines[0] if draw(st.booleans()) else text_of(draw(st.sampled_from(ODD)))
            path.write_text("\n".join(lines) + "\n")
        else:
            path.write_bytes(draw(damaged(path.read_bytes())))
        survives("records", _outputs(draw), folder, WRITES)


def _is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
