"""Measures what the README promises, on this machine, and prints each beside what it must be.

`make bench`, or with the numbers of runs and of bakes: `python benchmarks/bench.py 5 2`. The bakes
run in a folder of their own, with the base image that this user's data directory has.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amibuild import proc
from benchmarks import instances

ROOT = Path(__file__).parents[1]
INSTANCES = 10
AMIBUILD = Path(sys.executable).with_name("amibuild")


@dataclass(frozen=True)
class Measured:
    what: str
    must_s: float
    runs_s: Sequence[float]

    def row(self) -> str:
        median = statistics.median(self.runs_s)
        spread = f"{min(self.runs_s):.2f}-{max(self.runs_s):.2f}"
        share = median / self.must_s
        return f"| {self.what} | {self.must_s:g} s | {median:.2f} s | {spread} | {share:.0%} |"


def seconds(*arguments: str, folder: Path) -> float:
    began = time.perf_counter()
    proc.run([AMIBUILD, *arguments], cwd=folder)
    return time.perf_counter() - began


def measure(runs: int, bakes: int) -> list[Measured]:
    found = []
    with tempfile.TemporaryDirectory(prefix="amibuild-bench-") as name:
        folder = Path(name)
        shutil.copy(ROOT / "amibuild.toml", folder)

        def note(what: str, must_s: float, count: int, *arguments: str) -> None:
            sys.stderr.write(f"{what} …\n")
            times = [seconds(*arguments, folder=folder) for _ in range(count)]
            found.append(Measured(what, must_s, times))

        note("`amibuild --help`", 0.25, runs, "--help")
        # The base image is made here, if it is not there yet: it is not what is measured.
        seconds("plan", "--target", "local", folder=folder)
        note("`plan`", 2, runs, "plan", "--target", "local")
        note("`bake`, verification included", 120, bakes, "bake", "--target", "local")
        unchanged = ("bake", "--target", "local", "--if-changed")
        note("`bake --if-changed`, nothing changed", 2, runs, *unchanged)
    return found


def main() -> None:
    runs, bakes = (int(word) for word in (sys.argv[1:3] or ("5", "1")))
    rows = [m.row() for m in measure(runs, bakes)]
    head = "| what | must | median | range | of what it may take |\n|---|---|---|---|---|\n"
    sys.stdout.write(head + "\n".join(rows) + "\n")
    if os.geteuid() == 0:
        sys.stdout.write("\n" + instances.table(INSTANCES))


if __name__ == "__main__":
    main()
