"""Pages of docs/: their console blocks, run in order as a reader would; this makes their pictures.

`python tests/support/pages.py` runs the tutorials and puts what they make into docs/tutorials/.
"""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import PIL.ImageFont
import pytest
from command import run

from tiledlaf.labeling import lettering

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs/tutorials"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page):
    """What a page tells to type, and the lines that it shows below each."""
    found = []
    for block in BLOCK.findall(Path(page).read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append((line[2:].strip(), []))
            elif line.strip() not in ("", "..."):
                found[-1][1].append(line)
    return found


def tiledlaf(line):
    """Arguments of a line that calls this program, None where it calls another."""
    words = shlex.split(line, comments=True)
    return words[1:] if words[:1] == ["tiledlaf"] else None


def expanded(line):
    """Arguments as a shell hands them over: patterns without quotes are names of files."""
    found = []
    quoted = shlex.split(line, comments=True, posix=False)
    for word, bare in zip(shlex.split(line, comments=True), quoted, strict=True):
        names = sorted(glob.glob(word)) if bare == word else []
        found += names or [word]
    return found[1:]


def follow(page, folder, path=()):
    """Run a page in a folder that holds what lies beside it; the output of each command.

    Parameters
    ----------
    path : folders of programs that come first, such as a stand-in for sbatch
    """
    for script in TUTORIALS.glob("make_*.py"):
        shutil.copy(script, folder)
    shutil.copy(ROOT / "deploy/run.sh", folder)
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # words in pictures are in Pillow's own letters, as on a machine without fonts
        patch.setattr(lettering, "_font", lambda size: (PIL.ImageFont.load_default(size), False))
        places = (*map(str, path), str(Path(sys.executable).parent), os.environ["PATH"])
        patch.setenv("PATH", os.pathsep.join(places))
        for line, shown in commands(page):
            if tiledlaf(line) is None:
                found = subprocess.run(["bash", "-ec", line], capture_output=True, text=True)
                code, out, err = found.returncode, found.stdout, found.stderr
            else:
                code, out, err = run(*expanded(line))
            assert code == 0, f"{line}\n{out}\n{err}"
            there = {masked(part) for part in out.splitlines()}
            missing = [part for part in shown if masked(part) not in there]
            assert not missing, f"{line}\nsays no more: {missing}\nbut:\n{out}"
            said.append((line, out))
    return said


def pictures(page):
    """Pictures of a page and the files of its run: ![...](a.png "made by the run: out.png")."""
    found = re.findall(r'!\[[^\]]+\]\(([^)\s]+) "made by the run: ([^"]+)"\)', page.read_text())
    return [(page.parent / shown, made) for shown, made in found]


def masked(line):
    """A line without its numbers, which differ from machine to machine, and without its margins."""
    return " ".join(re.sub(r"\d[\d.,e-]*", "#", line).split())


def main():
    """Run each tutorial, and keep the pictures that its page shows."""
    for page in sorted(TUTORIALS.glob("*.md")):
        if pictures(page):
            with tempfile.TemporaryDirectory() as folder:
                follow(page, folder)
                for shown, made in pictures(page):
                    shutil.copy(Path(folder, made), shown)
                    print(shown)


if __name__ == "__main__":
    main()
