"""All experiments of the paper, one after the other, and one page of them.

``python pipelines/paper.py --output DIR`` leaves DIR/README.md with tables and figures beside it;
each experiment is a file of its own in this folder, and runs alone as well.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from support import experiment


def main() -> None:
    """Run them in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="tiny images: a minute or two")
    parser.add_argument("--output", default="paper", help="folder (paper)")
    args = parser.parse_args()
    options = ["--output", args.output, *(["--small"] if args.small else [])]
    failed = []
    for name in experiment.NAMES:
        experiment.say(f"\n{name}")
        file = Path(__file__).parent / f"{name}.py"
        if subprocess.run([sys.executable, file, *options], check=False).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
