"""Commands that start at one moment, forked from one process: ``races.py KINDS ROUNDS SEED``.

Of each kind there are two commands. Whatever they write at the same place, in the end it is what
one of them writes alone, a command that ends with 0 has got its own, an overview is of the labels
beside it, and the commands given again one after the other complete it. In every third round one of
them is killed on the way.
"""

import hashlib
import importlib
import os
import pkgutil
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import PIL.Image
import zarr

import tiledlaf
from tiledlaf import cli

LABEL = ["label", "im.npy", "OUT", "--workers", "1"]
ESTIMATE = ["estimate", "im.npy", "truth.npy", "OUT", "--workers", "1", "--steps", "3"]
TRAIN = ["train", "OUT", "--images", "im.npy", "--labels", "truth.npy", "--workers", "1"]
TRAIN += ["--steps", "11", "--size", "3"]
THREE = ["--classes", "3", "--tile", "32"]
OVER = [*THREE, "--overwrite"]
KINDS = {
    "same": (LABEL, THREE, THREE),
    "same again": (LABEL, OVER, OVER),
    "time": (LABEL, [*THREE, "--time", "1"], [*THREE, "--time", "9"]),
    "classes": (LABEL, THREE, ["--classes", "5", "--tile", "32"]),
    "tile": (LABEL, ["--classes", "3", "--tile", "16"], ["--classes", "3", "--tile", "64"]),
    "confidence": (LABEL, [*THREE, "--confidence"], [*THREE, "--confidence", "--time", "9"]),
    "two confidences": (
        LABEL,
        [*THREE, "--confidence", "--name", "a"],
        [*THREE, "--confidence", "--name", "b"],
    ),
    "names": (LABEL, [*THREE, "--name", "a"], [*THREE, "--name", "b"]),
    "overwrite": (LABEL, OVER, [*OVER, "--time", "9"]),
    "overwritten": (LABEL, THREE, [*OVER, "--time", "9"]),
    "export": (LABEL, [*THREE, "--export", "x.png"], [*THREE, "--export", "x.png", "--time", "9"]),
    "estimate": (ESTIMATE, ["--time", "1"], ["--time", "6"]),
    "train": (TRAIN, [], ["--seed", "1"]),
    "train the same": (TRAIN, [], []),
}
DELAYS = (0, 0, 0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
WORDS = {0, 1, 2, -signal.SIGKILL}


def started(number, arguments, at):
    """Fork a command that begins at a time."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        for descriptor, name in ((1, f"{number}.out"), (2, f"{number}.err")):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, descriptor)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sys.argv = ["tiledlaf", *arguments]
        while time.monotonic() < at:
            pass
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ran(commands, kill=None):
    """Codes and words of commands that start at given delays; the first is killed after a time."""
    begin = time.monotonic() + 0.03
    pids = [started(n, words, begin + delay) for n, (delay, words) in enumerate(commands)]
    if kill is not None:
        time.sleep(max(0.0, begin + kill - time.monotonic()))
        os.kill(pids[0], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return codes, [Path(f"{n}.err").read_text() for n in range(len(pids))]


def name_of(options):
    return options[options.index("--name") + 1] if "--name" in options else "tiledlaf"


def content(place, options):
    """What was written: labels and confidence, weights or a model; None where there is nothing."""
    if not os.path.exists(place):
        return None
    if os.path.isfile(place):
        return hashlib.sha256(Path(place).read_bytes()).hexdigest()
    paths = ["0"]
    if os.path.isdir(f"{place}/labels"):
        paths = [f"labels/{name_of(options)}/0", *["confidence/0"] * ("--confidence" in options)]
    found = hashlib.sha256()
    for path in paths:
        try:
            array = zarr.open_array(place, path=path, mode="r")
        except FileNotFoundError:
            return None
        found.update(np.ascontiguousarray(array[:]).tobytes())
    return found.hexdigest()


def picture(place, options):
    """File of the overview of labels."""
    name = name_of(options)
    return f"{place}.overview.png" if name == "tiledlaf" else f"{place}.{name}.overview.png"


def shown(place, options):
    """What the overview shows; None where there is none."""
    try:
        with PIL.Image.open(picture(place, options)) as sheet:
            return hashlib.sha256(np.asarray(sheet).tobytes()).hexdigest()
    except FileNotFoundError:
        return None


def clear():
    for path in Path().glob("o.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class Race:
    """Two commands on one place."""

    def __init__(self, kind):
        self.kind = kind
        base, *self.options = KINDS[kind]
        self.place = "o.model" if base is TRAIN else "o.zarr"
        self.base = [self.place if word == "OUT" else word for word in base]
        self.alone, self.pictures = [], []
        for options in self.options:
            clear()
            started_at = time.monotonic()
            codes, said = ran([(0, self.again(options))])
            self.seconds = time.monotonic() - started_at
            assert codes == [0], said
            self.alone.append(content(self.place, options))
            self.pictures.append(shown(self.place, options))
            assert base is not LABEL or self.pictures[-1], "no overview"

    def again(self, options):
        return [*self.base, *(word for word in options if word != "--overwrite")]

    def pictured(self, options):
        """Whether the overview is of the labels that are there now, or is still to be drawn."""
        now, there = shown(self.place, options), content(self.place, options)
        pairs = zip(self.alone, self.pictures, strict=True)
        return now is None or any((there, now) == pair for pair in pairs)

    def round(self, dice):
        """What is wrong after one start of both."""
        clear()
        if any("--overwrite" in options for options in self.options):
            ran([(0, self.again(self.options[0]))])
        kill = dice.uniform(0, self.seconds) if dice.random() < 0.34 else None
        delays = [0, dice.choice(DELAYS)]
        both = [(d, [*self.base, *o]) for d, o in zip(delays, self.options, strict=True)]
        codes, said = ran(both, kill)
        wrong = [] if set(codes) <= WORDS else ["a code"]
        wrong += ["a traceback" for text in said if "Traceback" in text]
        wrong += ["more than one line" for text in said if text.count("tiledlaf: error") > 1]
        differ = self.alone[0] != self.alone[1]
        shared = name_of(self.options[0]) == name_of(self.options[1])
        # the first may end before the second replaces what it has made
        replaced = shared and "--overwrite" in self.options[1]
        got = [content(self.place, options) for options in self.options]
        for n in (0, 1):
            fits = got[n] == self.alone[n] or (replaced and got[n] in self.alone)
            if codes[n] == 0 and not fits:
                wrong.append(f"command {n} says 0 and has not got its own")
            if codes[n] == 0 and not self.pictured(self.options[n]):
                wrong.append(f"command {n} says 0 and the overview shows other labels")
        if codes == [0, 0] and differ and shared and not replaced:
            wrong.append("both say 0")
        same = self.options[0] == self.options[1] and not replaced
        if same and kill is None and codes != [0, 0]:
            wrong.append("the same command was refused")
        completed = []
        for n, options in enumerate(self.options):
            if self.base[0] == "estimate" and got[n] is not None:
                completed.append(got[n] in self.alone)
                continue
            (code,), (text,) = ran([(0, self.again(options))])
            if "Traceback" in text:
                wrong.append("a traceback again")
                said.append(text)
            if code == 0 and content(self.place, options) != self.alone[n]:
                wrong.append(f"command {n} again says 0 and has not got its own")
            if code == 0 and shown(self.place, options) != self.pictures[n]:
                wrong.append(f"command {n} again says 0 and the overview is not of its labels")
            completed.append(code == 0)
        if not any(completed):
            wrong.append("nobody can complete it")
        known = {self.place, *(picture(self.place, options) for options in self.options)}
        left = [path.name for path in Path().glob("o.*") if path.name not in known]
        if kill is None and left:
            wrong.append(f"left {left}")
        return [
            f"{self.kind}, kill {kill}, delays {delays}, codes {codes}: {w} {said}" for w in wrong
        ]


def prepare():
    """Load what the commands load, so that forked ones start at once."""
    for module in pkgutil.walk_packages(tiledlaf.__path__, "tiledlaf."):
        if not module.name.endswith("__main__") and "cupy" not in module.name:
            importlib.import_module(module.name)
    for name in ("sklearn.cluster", "PIL.Image", "zarrs", "tifffile", "tqdm"):
        importlib.import_module(name)
    image = np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)
    image[:, 60:] //= 3
    np.save("im.npy", image)
    np.save("truth.npy", (image > 60).astype(np.uint8))


def main(kinds, rounds, seed):
    prepare()
    dice, wrong, races = random.Random(seed), [], {}
    names = list(KINDS) if kinds == "all" else kinds.split(",")
    for number in range(rounds):
        kind = names[number % len(names)]
        race = races.setdefault(kind, None) or Race(kind)
        races[kind] = race
        found = race.round(dice)
        wrong += found
        for line in found:
            print(line, flush=True)
        if number % 14 == 13:
            print(f"{number + 1} rounds, {len(wrong)} wrong", flush=True)
    print(f"{rounds} rounds, {len(wrong)} wrong", flush=True)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
