"""What a release is made of: bounds, lock, scripts that never say what they did not do."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = ("build", "cuda12", "cuda13", "release", "tiledlaf")
LOCKED = ("cloud", "hdf5", "imagej", "watch")
# the first release without it, by the advisory's own word
ADVISORIES = [
    ("bokeh", "3.8.2", "CVE-2026-21883"),
    ("click", "8.3.3", "CVE-2026-7246"),
    ("distributed", "2026.1.0", "CVE-2026-23528"),
    ("imagecodecs", "2023.9.18", "PYSEC-2023-174"),
    ("jinja2", "3.1.6", "CVE-2025-27516"),
    ("msgpack", "1.2.3", "CVE-2026-114613"),
    ("pillow", "12.3.0", "CVE-2026-59199"),
    ("pillow", "13.0.0", "CVE-2026-112398"),
    ("pytest", "9.0.3", "CVE-2025-71176"),
    ("scikit-learn", "1.5.0", "CVE-2024-5206"),
    ("setuptools", "83.0.0", "CVE-2026-59890"),
    ("setuptools", "84.1.0", "GHSA-xmj3-9gf7-h52w"),
    ("torch", "2.7.1", "CVE-2025-55558"),
    ("torch", "2.11.0", "CVE-2026-4538"),
    ("tornado", "6.5.6", "CVE-2026-49854"),
    ("tqdm", "4.66.3", "CVE-2024-34062"),
]
scripts = pytest.mark.skipif(sys.platform == "win32", reason="scripts are bash's")


def requirements(*lists):
    """Requirements by name, of dependencies and of extras."""
    every = (
        [PROJECT["project"]["dependencies"], *lists]
        if lists
        else [
            PROJECT["build-system"]["requires"],
            PROJECT["project"]["dependencies"],
            *EXTRAS.values(),
        ]
    )
    found = [Requirement(text) for texts in every for text in texts]
    return [each for each in found if each.name != "tiledlaf"]


@pytest.mark.parametrize(("name", "fixed", "advisory"), ADVISORIES)
def test_lower_bounds_are_above_advisories(name, fixed, advisory):
    of_name = [each for each in requirements() if each.name == name]
    assert of_name
    for each in of_name:
        assert not each.specifier.contains("0")
        (bound,) = [s.version for s in each.specifier if s.operator == ">="]
        assert Version(bound) >= Version(fixed), advisory


def pins(name):
    """What a lock names: name, version, marker, number of hashes."""
    text = (ROOT / f"deploy/lock/{name}.txt").read_text()
    assert text.startswith("# of pyproject.toml by `deploy/release.sh lock`: ")
    entries = re.split(r"\n(?=\S)", text.strip())[1:]
    entry = re.compile(
        r"([\w.-]+)==([\w.+]+)(?: ; ([^\\]+?))?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)"
    )
    found = [entry.fullmatch(each) for each in entries]
    assert all(found), [each for each, match in zip(entries, found, strict=True) if not match]
    return [(match[1], Version(match[2]), match[3]) for match in found]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_no_address(name):
    assert pins(name)  # nothing but names, versions, markers and hashes matches


def test_the_lock_is_what_pyproject_asks_for():
    held = {}
    for name, version, _ in pins("tiledlaf"):
        held.setdefault(name, []).append(version)
    for each in requirements(*(EXTRAS[name] for name in LOCKED)):
        assert each.name.lower() in held, each
        assert all(each.specifier.contains(version) for version in held[each.name.lower()]), each


@pytest.fixture
def copy(tmp_path):
    """What release.sh works on, to break."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def release(folder, *words, **environment):
    """Code and words of release.sh in a copy."""
    path = f"{folder}/bin:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    found = subprocess.run(
        [folder / "deploy/release.sh", *words],
        env={"PATH": path, "HOME": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return found.returncode, found.stdout


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@scripts
def test_the_lock_belongs_to_pyproject(copy):
    assert release(copy, "lock", "--check") == (0, "== lock\n")
    whole = (copy / "pyproject.toml").read_text()
    for old, new in [
        ('"numba>=', '"numba>1,>='),  # another bound
        ('    "numpy>=', '    "attrs",\n    "numpy>='),  # one more
        ('    "zarrs>=0.2.1",\n', ""),  # one less
        ('cuda13 = ["', 'cuda13 = ["attrs", "'),
        ('requires = ["', 'requires = ["attrs", "'),
    ]:
        assert whole.count(old) == 1, old
        (copy / "pyproject.toml").write_text(whole.replace(old, new))
        code, said = release(copy, "lock", "--check")
        assert code == 1
        assert said.endswith("is not of this pyproject.toml: deploy/release.sh lock\n")
    (copy / "pyproject.toml").write_text(whole)
    (copy / "deploy/lock/cuda12.txt").write_text("cupy-cuda12x==1\n")
    assert release(copy, "lock", "--check")[0] == 1


UV = """#!/bin/sh
echo "$*" >>asked
case " $* " in *" - "*) cat >/dev/null ;; esac
for word; do [ "$last" = -o ] && out=$word; last=$word; done
[ "${out##*/}" != "$FAILS.txt" ] || exit 1
echo "numpy==1" >"$out"
"""


@scripts
@pytest.mark.parametrize("name", ["", *LOCKS])
def test_a_lock_is_written_whole_or_not_at_all(copy, name):
    text = (copy / "pyproject.toml").read_text()
    (copy / "pyproject.toml").write_text(text.replace('"numba>=', '"numba>1,>='))
    before = {path.name: path.read_text() for path in (copy / "deploy/lock").iterdir()}
    program(copy / "bin/uv", UV)
    code, said = release(copy, "lock", FAILS=name, TMPDIR=str(copy))
    assert code == bool(name), said
    after = {path.name: path.read_text() for path in (copy / "deploy/lock").iterdir()}
    if name:
        assert after == before
        assert release(copy, "lock", "--check")[0] == 1
        return
    assert set(after) == set(before)
    assert {text.splitlines()[1] for text in after.values()} == {"numpy==1"}
    assert release(copy, "lock", "--check")[0] == 0
    assert "-c deploy/lock" not in (copy / "asked").read_text()  # what was just made


@scripts
@pytest.mark.parametrize(
    ("report", "says", "expected"),
    [
        ("skip", "could not look up", 1),  # its own code is 0 then
        ("", "could not look up", 1),  # it ended without a report
        ("part", "could not look up 1: click==", 1),
        ("none", "0 advisories", 0),
        ("vulnerable", "click 8.5.1: PYSEC-1, fixed in ['9']", 1),
        ("accepted", "0 advisories", 0),
    ],
)
def test_advisories_that_were_not_looked_up_are_said(copy, report, says, expected):
    for name in LOCKS:
        (copy / f"deploy/lock/{name}.txt").write_text("click==8.5.1 \\\n    --hash=sha256:0\n")
    (copy / "deploy/lock/build.txt").write_text("numpy==2.5 ; python_version > '3'\nnumpy==2.4\n")
    (copy / "deploy/advisories.txt").write_text("# accepted\nCVE-2 a reason\n")
    known = {"name": "click", "version": "8.5.1", "vulns": []}
    vulnerable = {"id": "PYSEC-1", "fix_versions": ["9"], "aliases": ["CVE-1"]}
    entries = {
        "skip": [{"name": name, "skip_reason": "no answer"} for name in ("click", "numpy")],
        "": None,
        "part": [{"name": "click", "skip_reason": "not found"}],
        "none": [known],
        "vulnerable": [known | {"vulns": [vulnerable]}],
        "accepted": [known | {"vulns": [vulnerable | {"aliases": ["CVE-2"]}]}],
    }[report]
    numpy = {"name": "numpy", "version": "2", "vulns": []}
    if entries is not None and report != "skip":
        entries.append(numpy)
    program(
        copy / "build/tools/bin/pip-audit",
        '#!/bin/sh\ncat "$2" >>lists; echo >>lists; exec cat report\n',
    )
    (copy / "build/tools/complete").touch()
    (copy / "report").write_text("" if entries is None else json.dumps({"dependencies": entries}))
    code, said = release(copy, "advisories")
    assert code == expected, said
    assert says in said
    assert ("NOT TESTED" in said) == bool(expected)
    # each version of a name that has two, for each of two services
    assert sorted((copy / "lists").read_text().split()) == sorted(
        2 * ["click==8.5.1", "numpy==2.4", "numpy==2.5"]
    )


DIGEST = "sha256:" + "0a" * 32


@scripts
def test_digests_are_what_a_registry_says(copy):
    was = {path: path.read_text() for path in (copy / "deploy").rglob("*") if path.is_file()}

    def changed():
        return {path.name for path, text in was.items() if path.read_text() != text}

    for answer in ("exit 1", "echo nonsense", "echo sha256:123"):
        program(copy / "bin/docker", f"#!/bin/sh\n{answer}\n")
        code, said = release(copy, "digests", IMAGE="registry.example/tiledlaf:1.0")
        assert code == 1
        assert said.count("NOT TESTED: the digest of ") == 4  # each at once, and at the end
        assert not changed()
    program(copy / "bin/docker", f'#!/bin/sh\necho "$4" >>asked\necho {DIGEST}\n')
    code, said = release(copy, "digests")
    assert (code, changed()) == (1, {"Dockerfile"})  # the image has no name yet
    for _ in "12":  # again: from the tag, not from the digest
        assert release(copy, "digests", IMAGE="registry.example/tiledlaf:1.0")[0] == 0
    assert changed() == {"Dockerfile", "job.yaml", "daskjob.yaml"}
    assert (copy / "asked").read_text().split() == [
        "python:3.13-slim",
        *2 * ["python:3.13-slim", "registry.example/tiledlaf:1.0"],
    ]
    dockerfile = (copy / "deploy/Dockerfile").read_text()
    assert f"\nARG PYTHON=python:3.13-slim@{DIGEST}\n" in dockerfile
    for path in (copy / "deploy/kubernetes").glob("*job.yaml"):
        images = re.findall("image: (.*)", path.read_text())
        assert set(images) == {f"registry.example/tiledlaf:1.0@{DIGEST}"}
        assert "NOT PINNED" not in path.read_text()
    assert "NOT PINNED" not in dockerfile


def test_what_is_not_pinned_says_so():
    """Digests are a registry's: one that nobody asked for would be invented."""
    for path in [ROOT / "deploy/Dockerfile", *ROOT.glob("deploy/kubernetes/*job.yaml")]:
        text = path.read_text()
        pinned = re.findall(r"(?:ARG PYTHON=|image: )\S+?(@sha256:[0-9a-f]{64})?(?: |\n)", text)
        assert pinned
        assert all(pinned) or "NOT PINNED" in text


@scripts
def test_signatures_are_not_claimed(copy):
    code, said = release(copy, "sign")
    assert code == 1
    assert "NOT TESTED: signatures" in said


@scripts
def test_signing_again_lists_what_was_built(copy):
    built = {f"tiledlaf-1{ending}": ending for ending in (".whl", ".tar.gz", ".cdx.json")}
    (copy / "dist").mkdir()
    for name, text in built.items():
        (copy / "dist" / name).write_text(text)
    program(
        copy / "build/tools/bin/python",
        "#!/bin/sh\nshift 4\nfor f; do echo signed >$f.sigstore.json; done\n",
    )
    (copy / "build/tools/complete").touch()
    for _ in "12":
        code, said = release(copy, "sign", SIGN="yes")
        assert code == 1, said  # no image
        lines = (copy / "dist/SHA256SUMS").read_text().splitlines()
        sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in built.items()}
        assert sorted(lines) == sorted(f"{value}  {name}" for name, value in sums.items())
        signed = {*built, "SHA256SUMS"}
        found = {path.name for path in (copy / "dist").iterdir()}
        assert found == signed | {f"{name}.sigstore.json" for name in signed}
    (copy / "dist/tiledlaf-1.tar.gz").unlink()
    code, said = release(copy, "sign", SIGN="yes")
    assert code == 1
    assert "*.tar.gz" in said
    assert (copy / "dist/SHA256SUMS").read_text().splitlines() == lines


@scripts
@pytest.mark.parametrize("words", [["nonsense"], ["sign", "test"], ["digests", "lock --check"]])
def test_steps_that_there_are_not(copy, words):
    code, said = release(copy, *words)
    assert (code, said) == (2, f"release.sh: no step {words[-1]}\n")


@scripts
@pytest.mark.parametrize(("code", "times"), [(0, 1), (2, 1), (1, 3), (137, 3)])
def test_again_repeats_what_was_cut_but_no_mistake(tmp_path, code, times):
    found = subprocess.run(
        ["sh", ROOT / "deploy/again.sh", "sh", "-c", f"echo >>tries; exit {code}"],
        cwd=tmp_path,
        env={"PAUSE": "0", "TRIES": "3", "PATH": "/usr/bin:/bin"},
    )
    assert found.returncode == code
    assert (tmp_path / "tries").read_text() == times * "\n"


@scripts
@pytest.mark.parametrize("ends", [0, 143])
def test_again_ends_with_the_command_when_told_to(tmp_path, ends):
    """As the first process of a container, which alone gets the signal."""
    script = f"trap 'echo >ended; exit {ends}' TERM; echo >>tries; sleep 60 & wait $!"
    process = subprocess.Popen(
        ["sh", ROOT / "deploy/again.sh", "sh", "-c", script],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
    )
    while not (tmp_path / "tries").exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait(20) == ends
    assert (tmp_path / "ended").exists()
    assert (tmp_path / "tries").read_text() == "\n"


@scripts
def test_again_between_two_tries():
    process = subprocess.Popen(
        ["sh", ROOT / "deploy/again.sh", "false"],
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert process.stderr.readline() == b"again: code 1; again in 30 s, 19 more at most\n"
    process.terminate()
    assert process.wait(20) == 143
    process.stderr.close()


def test_one_version_everywhere():
    version = PROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == version
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["preferred-citation"]["doi"] == "10.1007/s10851-022-01132-9"
    newest = re.search("^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert newest.split(",")[0] == version


def test_before_a_commit_run_the_tools_of_the_environment():
    """So their versions are those of pyproject.toml, and no other."""
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    tools = {each.name for each in requirements(EXTRAS["dev"])} | {"lint-imports"}
    for hook in local["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system"
        assert program in tools or (ROOT / program).is_file()


def test_the_workflow():
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    runs = {
        name: " ".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()
    }
    assert "bash .ci/run" in runs["linux"]
    assert "bash .ci/light" in runs["light"]
    matrix = jobs["light"]["strategy"]["matrix"]
    assert {system.split("-")[0] for system in matrix["os"]} >= {"macos", "windows"}
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    for job in jobs.values():
        for used in (step["uses"] for step in job["steps"] if "uses" in step):
            assert re.fullmatch(r"actions/\w+@[0-9a-f]{40}", used)
    named = re.findall(r"tests/[\w/.]+", (ROOT / ".ci/light").read_text())
    assert len(named) > 5
    assert all((ROOT / path).exists() for path in named)


def test_the_image_gets_what_it_copies():
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in rules
    copied = re.findall(
        r"^COPY (?:--chmod=\S+ )?([^-].*) \S+$", (ROOT / "deploy/Dockerfile").read_text(), re.M
    )
    names = [name for words in copied for name in words.split()]
    assert len(names) > 4
    for name in names:
        assert (ROOT / name).exists()
        assert any(
            name == rule[1:] or name.startswith(f"{rule[1:]}/") for rule in rules if rule[:1] == "!"
        )
