"""Texts of others: no control characters, no markup and no secrets in anything that is shown."""

import ast
import importlib
import json
import logging
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import numpy as np
import pytest
import zarr
from command import contents, run

import tiledlaf
from tiledlaf import redaction
from tiledlaf.errors import BadPixels, DamagedFile, InputError, Unavailable
from tiledlaf.files.answers import Refused, Unreachable
from tiledlaf.files.image import FileWarning
from tiledlaf.pool.tasks import PoolWarning, WorkersDied, WorkersGone
from tiledlaf.redaction import CONTROL, shown
from tiledlaf.reports import markup

BAD = "a\x1b[2J\x07\x9b31m\u202e\u200b\u2066\x7f\r\nforged\ud800<script>\"'&"
CLEAN = r"a\x1b[2J\x07\x9b31m\u202e\u200b\u2066\x7f  forged\ud800<script>" + "\"'&"
SECRET = "Hunter2Hunter2"


def test_control_characters_are_shown_as_numbers():
    assert shown(BAD) == CLEAN
    assert shown(CLEAN) == CLEAN
    assert shown("Zelle äß, 細胞, خلية, 👩‍🔬, naïve ±µm") == "Zelle äß, 細胞, خلية, 👩‍🔬, naïve ±µm"


@pytest.mark.parametrize(
    "kind",
    [
        *(DamagedFile, FileWarning, PoolWarning, WorkersGone, WorkersDied, Unavailable, BadPixels),
        lambda text: Refused(5, text, text),
        lambda text: Unreachable(5, text, text),
    ],
)
def test_errors_and_warnings_are_clean_when_made(kind):
    made = kind(BAD, (1, 2)) if kind is BadPixels else kind(BAD)
    for error in (made, pickle.loads(pickle.dumps(made))):
        assert type(error) is type(made)
        assert not CONTROL.search(str(error))
        assert r"\x1b[2J" in str(error)


@pytest.fixture
def guarded():
    before = logging.getLogRecordFactory()
    redaction.guard_logs.cache_clear()
    redaction.guard_logs()
    yield
    logging.setLogRecordFactory(before)
    redaction.guard_logs.cache_clear()


def test_logs_are_clean(caplog, guarded):
    try:
        raise RuntimeError(f"{BAD} https://host/a?sig={SECRET}")
    except RuntimeError:
        logging.getLogger("other").exception("failed: %s", BAD)
    assert "failed: a" in caplog.text
    assert SECRET not in caplog.text
    assert not [c for c in CONTROL.findall(caplog.text) if c != "\n"]


class Wordless:
    """An object whose texts cannot be had, one of them perhaps."""

    def __init__(self, plain=False):
        self._plain = plain

    def __str__(self):
        raise RuntimeError(SECRET)

    def __repr__(self):
        if self._plain:
            return f"sig={SECRET}"
        raise KeyError(SECRET)


@pytest.mark.parametrize(
    ("message", "values", "said"),
    [
        ("%(a)s", [{"b": 1}], "'%(a)s', {'b': 1}"),
        ("%d", ["x"], "'%d', ('x',)"),
        ("%s", [Wordless(True)], "'%s', (sig=***,)"),
        ("%s", [Wordless()], "a message of other that cannot be shown, KeyError"),
        (Wordless(), [], "a message of other that cannot be shown, KeyError"),
    ],
)
def test_a_log_raises_nothing_for_its_message(caplog, guarded, message, values, said):
    logging.getLogger("other").warning(message, *values)
    assert said in caplog.text
    assert SECRET not in caplog.text


def test_markup_escapes_by_default():
    found = markup.element("p", BAD, markup.element("img", src=BAD), title=BAD)
    assert found.count("<") == 3  # p, img and the end of p
    assert not CONTROL.search(found)
    assert found.count('"') == 4


def test_the_command_prints_in_one_way():
    """Through `shared.echo`, or to a bar on a terminal through `plain`."""
    allowed = {"shared.py": {"echo"}, "progress.py": {"write"}}
    for file in Path(tiledlaf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            prints = called in ("print", "click.echo", "click.secho", "tqdm.write")
            prints = prints or called.startswith(("sys.stdout.", "sys.stderr.write"))
            assert not prints or called.rpartition(".")[2] in allowed.get(file.name, ()), called


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A store whose channels, and names of classes, hold everything that must not be shown."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    group = zarr.open_group("i.zarr", mode="w")
    pixels = rng.integers(0, 99, (2, 40, 50), dtype=np.uint8)
    group.create_array("0", data=pixels, chunks=(2, 40, 50))
    text = BAD.replace("\ud800", "")
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": a, "type": "space", "unit": text} for a in "yx"
    ]
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": text,
                "axes": axes,
                "datasets": [{"path": "0", "coordinateTransformations": scale}],
                "coordinateTransformations": [{"type": text, "output": text}],
            }
        ],
        "omero": {"channels": [{"label": text}, {"label": f"b{text}"}]},
    }
    Path("names.json").write_text(json.dumps([text, f"2{text}"]))
    return tmp_path


def told(*command):
    found = run(*command)
    both = found.out + found.err
    bad = [c for c in CONTROL.findall(both) if c != "\n"]
    assert not bad, both
    assert "\nforged" not in both
    return found


def test_names_in_files_reach_no_terminal(evil):
    told("info", "i.zarr")
    options = ["--axes", "cyx", "--names", "names.json", "--classes", "2", "--workers", "1"]
    plain = told("label", "i.zarr", "o.zarr", *options)
    array = told("label", "i.zarr/0", "o.zarr", *options)
    assert (plain.code, array.code) in ((0, 2), (2, 0)), (plain, array)
    assert r"\x1b[2J" in plain.out + array.out
    told("info", "o.zarr")
    told("status", "o.zarr")
    json.loads(told("status", "o.zarr", "--json").out)
    told("label", f"{BAD}.npy", "x.zarr", "--classes", "2")


# Secrets

PLACES = (
    f"s3://key:{SECRET}@host/a.zarr",
    f"https://host/a.zarr?X-Amz-Signature={SECRET}",
    f"https://host/a.zarr#{SECRET}",
)


def calls(place):
    """Each command with a secret in the place of each of its texts."""
    main = importlib.import_module("tiledlaf.cli.main")
    for name in set(main.ALL) - {"demo"}:
        known = main.cli.get_command(click.Context(main.cli), name).params
        for one in known:
            if one.type is not click.STRING or getattr(one, "is_flag", False):
                continue
            command = [name]
            for other in known:
                value = place if one is other else "t.npy"
                if isinstance(other, click.Argument):
                    command.append(value)
                elif one is other or other.required:
                    command += [other.opts[0], value]
            yield command


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_of_a_url_is_repeated(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", np.arange(12, dtype=np.uint8).reshape(3, 4))
    tried = 0
    for command in calls(place):
        found = run(*command)
        tried += 1
        assert SECRET not in found.out + found.err, found
    assert tried > 60
    assert not [p for p, data in contents(".").items() if SECRET.encode() in data]


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"x-amz-security-token={SECRET}&b=1",
        f'{{"account_key": "{SECRET}"}}',
        f"GET https://host/a?sv=1&sig={SECRET}: 403",
        f"password = {SECRET}",
        f"the variable's value, {SECRET}, as a library repeats it",
    ],
)
def test_secrets_are_found_outside_of_urls(monkeypatch, text):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert SECRET not in shown(text)


KEYS = [
    *("secret", "aws_secret_access_key", "client-secret", "secretKey", "clientSecret", "SECRET"),
    *("token", "id_token", "x-amz-security-token", "x-amz-credential", "sig", "signature"),
    *("X-Goog-Signature", "password", "db_password", "passwd", "authorization", "api_key"),
    *("apikey", "my-api-key", "account_key", "access_key_id", "AccessKeyId"),
]
WORDS = ["secretory", "token", "signature", "secret", "password", "key"]


@pytest.mark.parametrize(
    "form", ["{}={}", '"{}": "{}"', "{}: Bearer {}", "a=1&{}={}&", "e:{} = {}"]
)
def test_keys_of_secrets(form):
    for key in KEYS:
        assert SECRET not in shown(form.format(key, SECRET)), key
    for key in ("a", "secretory", "secretion", "design", "key"):
        assert shown(form.format(key, SECRET)) == form.format(key, SECRET), key


HOSTILE = (
    *("secret-", "token", "key:", "x-amz-", "a-", "a", "a:", "a=", "_key", "sig", "sig=", "-", "="),
    *("ab:/", "ab://", "http://a:", "http://a@", "s3://k:v@h/", "s3://:", "ab:/.", "..:/"),
    "\u0661:/",
    *(":", ".", "/", "@", "#", "\xdf", "authorization", 'secret="', "secret:bearer ", "basic "),
    *("token: ", "a  ", "a ", " ", "\n", "\x1b", "\u202e"),
)
GROWTH = """
import sys
from tiledlaf.redaction import shown
for unit in eval(sys.argv[1]):
    many = unit * 10_000
    for text in (many, "sig=" + many, many + "=", "a://" + many, "ab://" + many, "secret:" + many):
        shown(text)
"""


def test_long_texts_take_time_by_their_length():
    """Seconds; minutes where a pattern looks at each character from each."""
    subprocess.run([sys.executable, "-c", GROWTH, ascii(HOSTILE)], check=True, timeout=60)


def test_names_of_classes_are_no_secrets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", np.random.default_rng(0).integers(0, 99, (30, 30), dtype=np.uint8))
    Path("names.json").write_text(json.dumps(WORDS))
    options = ["--axes", "yx", "--names", "names.json", "--classes", "6", "--workers", "1"]
    found = run("label", "t.npy", "o.zarr", *options)
    assert found.code == 0, found.err
    assert "***" not in found.out
    for word in WORDS:
        assert f" {word} " in found.out
    places = {"features": [], "type": "FeatureCollection"}
    for word in WORDS:
        ring = [[0, 0], [9, 0], [9, 9], [0, 0]]
        shape = {"type": "Polygon", "coordinates": [ring]}
        named = {"classification": {"name": word}}
        places["features"].append({"type": "Feature", "geometry": shape, "properties": named})
    Path("a.geojson").write_text(json.dumps(places))
    for path in ("a.geojson", "o.zarr"):
        said = run("info", path)
        assert said.code == 0, said.err
        assert "***" not in said.out
        assert all(word in said.out for word in WORDS)


def test_results_have_no_secrets_of_urls(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for text in (*PLACES, f"class {SECRET}, 3 pixels"):
        assert SECRET not in redaction.plain(text)
    assert redaction.plain(BAD) == CLEAN


def test_a_fault_of_the_program_tells_no_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", np.arange(12, dtype=np.uint8).reshape(3, 4))

    def fails(*_, **__):
        raise RuntimeError(f"{BAD} https://host/x?sig={SECRET}")

    monkeypatch.setattr("tiledlaf.reports.text.info", fails)
    found = run("info", "t.npy")
    assert found.code == 1
    assert "Traceback" in found.err
    assert SECRET not in found.err
    assert not [c for c in CONTROL.findall(found.err) if c != "\n"]


# Sizes


def bomb(path, name):
    """An archive of some kilobytes with a part of many times its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as f:
        np.lib.format.write_array_header_1_0(
            f, {"descr": "|u1", "fortran_order": False, "shape": (2**27,)}
        )
        for _ in range(2**7):
            f.write(bytes(2**20))


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("a.model", ["info", "a.model"]),
        ("a.model", ["status", "a.model"]),
        ("a.model.checkpoint", ["status", "a.model"]),
        ("a.ozx", ["info", "a.ozx"]),
    ],
)
def test_archives_unpack_to_no_more_than_their_size_justifies(tmp_path, monkeypatch, path, command):
    monkeypatch.chdir(tmp_path)
    bomb(path, "x.npy")
    found = run(*command)
    assert found.code == 2
    assert "unpack" in found.err
    assert found.err.count("\n") == 1


def test_long_messages_are_cut():
    text = str(InputError("x" * 10**6 + ": choose another"))
    assert len(text) < 4000
    assert text.endswith(": choose another")
