"""The program that runs checks on a machine that stays. It runs there, not here:

    python3 rerun.py FOLDER --json FILE

What runs them is kept in FOLDER, compiled: lib.tar.xz, which is here when it is new. The checks are
those of steps.tar.xz. It ends with exit code 75 when FOLDER has gone.
"""

from __future__ import annotations

import compileall
import shutil
import sys
import tarfile
import time
from pathlib import Path

STEPS = "steps"
MISSING = 75  # sysexits.h: try again


def main(folder: Path) -> int:
    started = time.monotonic()
    if Path("lib.tar.xz").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _unpack(Path("lib.tar.xz"), folder)
        compileall.compile_dir(folder, quiet=2)
    if not folder.is_dir():
        return MISSING
    sys.dont_write_bytecode = True
    _unpack(Path("steps.tar.xz"), Path(STEPS))
    sys.path.insert(0, str(folder))
    from amibuild_checks import main as run_checks  # type: ignore[import-not-found]

    return int(run_checks(str(Path(STEPS).absolute()), started))


def _unpack(packed: Path, folder: Path) -> None:
    with tarfile.open(packed) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:  # Python 3.11.2 of Debian 12
            tar.extractall(folder)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv.pop(1))))
