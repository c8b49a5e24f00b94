"""Commands with faults: begun, killed, completed, and the row that says what it cost."""

import json
import time
from pathlib import Path

import processes
from runs import RECORDS, arrays

FAULTY = Path(__file__).with_name("faulty.py")


PROCESSES = ["--scheduler", "processes", "--workers", "2"]


def lines():
    """Records of tiles."""
    found = [line for line in RECORDS.read_text().splitlines() if line.endswith("}")]
    return [record for record in map(json.loads, found) if "tile" in record]


def done():
    """Tiles with a record that they are done."""
    found = lines() if RECORDS.exists() else []
    return {tuple(r["tile"]) for r in found if r["state"] == "done"}


def begun():
    return noted("begun")


def noted(name):
    return Path(name).read_text().splitlines() if Path(name).exists() else []


def row(fault, times, lost, again, different):
    print(f"\n| {fault} | {times} | {lost} | {again} | {different} |", end="")


def completed(fault, times, expected, tiles):
    """Compare arrays and print a row; how many tiles were begun again."""
    now = arrays("out.zarr")
    assert now.keys() == expected.keys()
    different = sum(int((now[path] != array).sum()) for path, array in expected.items())
    lost, again = tiles - len(done()), len(begun()) - len(set(begun()))
    row(fault, times, lost, again, f"{different} pixels")
    assert (different, lost) == (0, 0)
    return again


def kill_in_turn(process, period, progress, least=1):
    """Kill one of the workers, then the other, unless nothing went on since; how often."""
    killed, last, before = 0, time.monotonic(), progress()
    while process.poll() is None:
        time.sleep(0.05)
        if time.monotonic() < last + period or progress() < before + least:
            continue
        for worker in processes.workers(process.pid)[killed % 2 : killed % 2 + 1]:
            killed += processes.kill(worker)
        last, before = time.monotonic(), progress()
    return killed
