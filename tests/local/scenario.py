"""The command line as a user calls it, in a folder of its own, and what it leaves on the host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amibuild import proc
from amibuild.errors import WaitTimeout
from amibuild.wait import Look, until

REPOSITORY = Path(__file__).parents[2]
OURS = ("qemu-system", "systemd-nspawn", "slirp4netns", "amibuild.local", "amibuild-", "/i-")


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


def on_host() -> dict[str, set[str]]:
    """Everything on this host that could be ours."""
    return {
        "processes": _processes(),
        "mounts": {line for line in _lines("/proc/self/mounts") if "amibuild" in line},
        "loops": _said(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]),
        "links": {line.split("@")[0] for line in _said(["ip", "-brief", "link"])},
        "cgroups": {
            str(path)
            for root in Path("/sys/fs/cgroup").glob("*")
            if root.is_dir()
            for path in root.glob("*amibuild*")
        },
    }


def _processes() -> set[str]:
    found = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if any(name in words for name in OURS) and "pytest" not in words:
            found.add(f"{folder.name} {words[:120]}")
    return found


def _lines(path: str) -> Sequence[str]:
    return Path(path).read_text().splitlines()


def _said(argv: Sequence[str]) -> set[str]:
    return {line for line in proc.run(argv).text.splitlines() if line.strip()}


# What was there before the first test: another endpoint of the same person, say.
_BEFORE = on_host()


def left_on_host() -> dict[str, set[str]]:
    """What is there now and was not before; empty once nothing of ours is left.

    The kernel takes some of it away by itself, after the process: it gets 20 s for that.
    """

    def new() -> dict[str, set[str]]:
        now = on_host()
        return {kind: now[kind] - _BEFORE[kind] for kind in now if now[kind] - _BEFORE[kind]}

    with suppress(WaitTimeout):
        until(
            lambda: Look("busy", None if new() else True), what="the host to be clean", timeout_s=20
        )
    return new()
