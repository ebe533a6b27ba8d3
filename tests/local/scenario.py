"""The command line as a user calls it, in a folder of its own, and what it leaves on the host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amibuild import proc
from amibuild.wait import Look, until

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Called:
    exit_code: int
    stdout: str
    story: str

    @property
    def json(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.stdout)
        return loaded


def new_project(folder: Path, *, recipe: str | None = None) -> Path:
    """A folder with the shipped recipe, or another."""
    folder.mkdir(parents=True)
    if recipe is None:
        shutil.copy(REPOSITORY / "amibuild.toml", folder)
    else:
        (folder / "amibuild.toml").write_text(recipe)
    return folder


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "amibuild.cli.main", *words]


def amibuild(folder: Path, *words: str, timeout_s: float = 900) -> Called:
    done = proc.run(command(*words), cwd=folder, check=False, timeout_s=timeout_s)
    return Called(done.exit_code, done.text, done.stderr.decode(errors="replace"))


class Running:
    """A call that is still going on. Its story is in a file."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.story = folder / "story"
        self.result = folder / "result"
        with self.story.open("wb") as story, self.result.open("wb") as result:
            before = Path.cwd()
            os.chdir(folder)
            try:
                self.process = proc.start(command(*words), stdout=result, stderr=story)
            finally:
                os.chdir(before)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        """A test that fails leaves nothing running either."""
        self.process.kill()
        self.process.wait()

    def wait_for_line(self, text: str, *, timeout_s: float = 300) -> None:
        def look() -> Look[bool]:
            seen = self.story.read_text(errors="replace")
            if text in seen:
                return Look("seen", True)
            assert self.process.poll() is None, f"it ended without saying {text!r}:\n{seen}"
            return Look("not said yet")

        until(look, what=repr(text), timeout_s=timeout_s)

    def end(self, number: signal.Signals, *, timeout_s: float = 120) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)
