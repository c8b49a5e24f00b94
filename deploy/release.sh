#!/usr/bin/env bash
# Make a release, or steps of it; CONTRIBUTING.md says when:
#
#   deploy/release.sh lock [--check | --upgrade]
#   deploy/release.sh advisories | build | sbom | digests | sign
#   deploy/release.sh all
#
# lock        write deploy/lock, every file by its hash, from pyproject.toml: versions that still fit
#             stay, --upgrade takes the newest; --check only says whether they belong together
# advisories  look up all of deploy/lock; deploy/advisories.txt has what is accepted
# build       write dist/, look into it, and run the wheel in empty environments of PYTHONS
# sbom        write dist/*.cdx.json, of the environment that deploy/lock makes
# digests     write the digest of the base image into deploy/Dockerfile, and that of IMAGE, which
#             is in its registry already, into deploy/kubernetes
# sign        with SIGN=yes: sign dist/ by sigstore and IMAGE by cosign, each of which asks who you are
#
# What could not be done says NOT TESTED, and the code is 1.
#
# PYTHONS  versions to try; "3.11 3.12"
# IMAGE    such as registry.example/tiledlaf:1.0
# SIGN     yes
set -euo pipefail
[ $# -gt 0 ] || { sed -n '/^# Make/,/^set/s/^# \?//p' "$0"; exit 2; }
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1
tools=$PWD/build/tools
missing=()

step() { printf '== %s\n' "$*"; }
untested() { echo "NOT TESTED: $*" && missing+=("$*"); }

interpreter() { # a name on the path may be a version manager's that starts nothing
    local candidate
    for candidate in "python$1" ~/.pyenv/versions/"$1".*/bin/python; do
        "$candidate" --version >/dev/null 2>&1 && echo "$candidate" && return
    done
    return 1
}

need_tools() { # of deploy/lock, anew when that is
    [ ! "$tools/complete" -nt deploy/lock/release.txt ] || return 0
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -q --require-hashes -r deploy/lock/build.txt -r deploy/lock/release.txt
    touch "$tools/complete"
}

requirements() { # of a list in pyproject.toml, one a line: build, NAME of an extra
    python3 - "$1" <<'END'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
extras = project["project"]["optional-dependencies"]
print(*project["build-system"]["requires"] if sys.argv[1] == "build" else extras[sys.argv[1]], sep="\n")
END
}

extras=(cloud hdf5 imagej watch)
stamp() { # what the lock is made of
    python3 - "${extras[@]}" cuda12 cuda13 release <<'END'
import hashlib, json, sys, tomllib
found = tomllib.load(open("pyproject.toml", "rb"))
project = found["project"]
of = [found["build-system"]["requires"], project["requires-python"], project["dependencies"]]
of += [project["optional-dependencies"][name] for name in sys.argv[1:]]
print("# of pyproject.toml by `deploy/release.sh lock`:", hashlib.sha256(json.dumps(of).encode()).hexdigest())
END
}

lock() {
    local name head
    head=$(stamp)
    if [ "${1:-}" = --check ]; then
        for name in build cuda12 cuda13 release tiledlaf; do
            [ "$(head -n 1 "deploy/lock/$name.txt")" = "$head" ] || {
                echo "deploy/lock/$name.txt is not of this pyproject.toml: deploy/release.sh lock" >&2
                exit 1
            }
        done
        return
    fi
    local uv new
    uv=$(command -v uv) || { # which the lock itself names
        python3 -m venv "$tools" && "$tools/bin/pip" install -q uv && uv=$tools/bin/uv
    }
    new=$(mktemp -d)
    mkdir -p deploy/lock "$new/stamped"
    cp deploy/lock/*.txt "$new" 2>/dev/null || true # versions that still fit
    locked() { # NAME, REQUIREMENTS..., options
        local name=$1
        shift
        "$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
            --no-annotate --no-emit-index-url --no-emit-find-links "$@" -o "$new/$name.txt"
        { echo "$head" && grep -v '^#' "$new/$name.txt"; } >"$new/stamped/$name.txt"
    }
    locked tiledlaf pyproject.toml "${extras[@]/#/--extra=}" "$@"
    requirements build | locked build - "$@"
    requirements release | locked release - -c "$new/build.txt" "$@"
    for name in cuda12 cuda13; do # beside the first; ctk is what CuPy compiles its kernels with
        requirements "$name" | sed 's/>=/[ctk]>=/' |
            locked "$name" - -c "$new/tiledlaf.txt" --no-emit-package numpy "$@"
    done
    mv "$new"/stamped/*.txt deploy/lock # all or none: a lock that is not made of this is not stamped
    rm -r "$new"
}

advisories() {
    need_tools
    local work service
    work=$(mktemp -d)
    # pip-audit looks at what this machine would install, and takes each name once: so all
    # versions of a name go into lists one after the other
    python3 - "$work" <<'END'
import collections, pathlib, re, sys
lists = collections.defaultdict(list)
seen = collections.Counter()
pins = [re.match(r"[\w.-]+==[\w.+!-]+", line) for file in pathlib.Path("deploy/lock").glob("*.txt")
        for line in file.read_text().splitlines()]
for pin in sorted({found[0] for found in pins if found}):
    name = pin.split("==")[0]
    lists[seen[name]].append(pin)
    seen[name] += 1
for number, pins in lists.items():
    pathlib.Path(sys.argv[1], f"{number}.txt").write_text("\n".join(pins))
END
    for service in osv pypi; do
        for list in "$work"/*.txt; do
            "$tools/bin/pip-audit" -r "$list" --no-deps --disable-pip -s "$service" -f json \
                --progress-spinner off >"$list.$service" 2>"$work/log" || true
        done
        # its code is 0 when it could look up nothing: only the report says so
        python3 - "$work"/*."$service" <<'END' || missing+=("advisories, $service")
import json, pathlib, sys
accepted = {line.split()[0] for line in open("deploy/advisories.txt") if line[:1] not in "#\n"}
looked, skipped, found = 0, [], []
for file in map(pathlib.Path, sys.argv[1:]):
    pins = file.with_suffix("").read_text().split()
    try:
        report = json.loads(file.read_text())["dependencies"]
    except ValueError:
        report = []
    done = [entry for entry in report if "skip_reason" not in entry]
    looked += len(done)
    names = {entry["name"] for entry in done}
    skipped += [pin for pin in pins if pin.split("==")[0] not in names]
    found += [f"{entry['name']} {entry['version']}: {advisory['id']}, fixed in {advisory['fix_versions']}"
              for entry in done for advisory in entry["vulns"]
              if not accepted & {advisory["id"], *advisory["aliases"]}]
service = file.suffix[1:]
print(f"{service}: {looked} looked up, {len(found)} advisories", *found, sep="\n  ")
if skipped:
    print(f"NOT TESTED: {service} could not look up {len(skipped)}: {', '.join(skipped[:4])} ...")
sys.exit(bool(found or skipped))
END
    done
    rm -r "$work"
}

run_wheel() { # PYTHON: outside of the checkout, with nothing but what it brings
    local said
    (
        cd "$(mktemp -d)"
        said=$("$1" -I -m tiledlaf --version)
        [ "$said" = "tiledlaf, version $version" ] || { echo "--version says: $said" && exit 1; }
        "$1" -I -m tiledlaf demo
        test -s tiledlaf-demo.png && test -d tiledlaf-demo.zarr
        "$1" -m pip check
        rm -r "$PWD"
    )
}

build() {
    need_tools
    local work version python
    work=$(mktemp -d)
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH # the same commit makes the same bytes
    # a clean copy: nothing that lies about gets in
    git ls-files -z | tar --null -T - -cf - | tar -C "$work" -xf -
    rm -rf dist
    "$tools/bin/python" -m build --no-isolation --outdir dist "$work" >"$work.log" 2>&1 ||
        { cat "$work.log" && exit 1; }
    "$tools/bin/twine" check --strict dist/*
    "$tools/bin/check-wheel-contents" dist/*.whl
    python3 - <<'END'
import pathlib, subprocess, tarfile, zipfile
known = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
known = {name for name in known if name and name.split("/")[0] not in
         {".ci", ".github", ".gitignore", ".pre-commit-config.yaml"}}
(wheel,), (source,) = pathlib.Path("dist").glob("*.whl"), pathlib.Path("dist").glob("*.tar.gz")
for what, held, expected in [
    ("wheel", {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n},
     {name for name in known if name.startswith("tiledlaf/")}),
    ("source", {m.name.split("/", 1)[1] for m in tarfile.open(source) if m.isfile()}, known),
]:
    held = {name for name in held if name not in {"PKG-INFO", "setup.cfg"} and ".egg-info/" not in name}
    if held != expected:
        raise SystemExit(f"{what}: too much {sorted(held - expected)}, lacks {sorted(expected - held)}")
    print(f"{what}: the {len(held)} files that git knows")
END
    version=$(basename dist/*.whl | cut -d- -f2)
    for number in ${PYTHONS:-3.11 3.12}; do
        python=$(interpreter "$number") || { untested "the wheel on Python $number: not here" && continue; }
        "$python" -m venv "$work/$number"
        "$work/$number/bin/pip" install -q dist/*.whl
        run_wheel "$work/$number/bin/python"
    done
    # and with the versions of the lock, as the image
    rm -rf build/locked
    "${python:-python3}" -m venv build/locked
    "$tools/bin/uv" pip install -q --python build/locked/bin/python --require-hashes \
        -r deploy/lock/tiledlaf.txt
    build/locked/bin/pip install -q --no-deps --no-index dist/*.whl
    run_wheel "$PWD/build/locked/bin/python"
    rm -r "$work" "$work.log"
}

sbom() {
    need_tools
    [ -d build/locked ] || { untested "sbom: deploy/release.sh build makes what it lists" && return; }
    local out
    out=dist/$(basename dist/*.whl .whl | cut -d- -f1,2).cdx.json
    "$tools/bin/cyclonedx-py" environment --pyproject pyproject.toml --mc-type application \
        --output-reproducible --of JSON -o "$out" build/locked/bin/python
    echo "$out: $(grep -c '"bom-ref"' "$out") components"
}

digest() { # IMAGE: what its registry says, and nothing else
    local found
    found=$(docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}') || return 1
    [[ $found =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "$1: no digest: $found" >&2 && return 1; }
    echo "${1%@*}@$found"
}

digests() {
    local base image
    base=$(sed -n 's/^ARG PYTHON=\([^@]*\).*/\1/p' deploy/Dockerfile)
    if image=$(digest "$base"); then
        sed -i -e "s|^ARG PYTHON=.*|ARG PYTHON=$image|" \
            -e "s|^# NOT PINNED.*|# pinned by \`deploy/release.sh digests\`|" deploy/Dockerfile
        echo "deploy/Dockerfile: $image"
    else
        untested "the digest of $base: no answer of its registry, deploy/Dockerfile is as it was"
    fi
    [ -n "${IMAGE:-}" ] || { untested "the digest of tiledlaf's image: IMAGE names none" && return; }
    if image=$(digest "$IMAGE"); then
        sed -i "s|image: .*|image: $image|" deploy/kubernetes/*job.yaml
        echo "deploy/kubernetes: $image"
    else
        untested "the digest of $IMAGE: no answer of its registry, deploy/kubernetes is as it was"
    fi
}

sign() {
    [ "${SIGN:-}" = yes ] || { untested "signatures: SIGN=yes asks for them" && return; }
    need_tools
    local built
    cd dist
    built=(*.whl *.tar.gz *.cdx.json) # and nothing that an earlier `sign` wrote
    sha256sum -- "${built[@]}" >../build/SHA256SUMS
    mv ../build/SHA256SUMS .
    "$tools/bin/python" -m sigstore sign --overwrite "${built[@]}" SHA256SUMS
    cd ..
    if [ -n "${IMAGE:-}" ] && command -v cosign >/dev/null; then
        cosign sign --yes "$(digest "$IMAGE")"
    else
        untested "the signature of an image: needs IMAGE and cosign"
    fi
}

steps=(lock advisories build sbom digests sign)
case $1 in # a step after && or before it would go on after an error
    lock)
        step lock
        lock "${@:2}"
        set --
        ;;
    all) set -- "${steps[@]}" ;;
esac
for name in "$@"; do
    case " ${steps[*]} " in *" $name "*) ;; *) echo "release.sh: no step $name" >&2 && exit 2 ;; esac
done
for name in "$@"; do
    step "$name"
    "$name"
done
[ "${#missing[@]}" = 0 ] || { printf 'NOT TESTED: %s\n' "${missing[@]}" && exit 1; }
