"""kill -9 at random instants of real bakes: the next `amibuild local` finds nothing of ours left.

`AMIBUILD_SOAK_KILLS` is how many (50), `AMIBUILD_SOAK_SEED` repeats the instants of another run.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from time import monotonic

import pytest

from amibuild.local import debian
from amibuild.local.base import ensure_base
from amibuild.local.machines.cgroups import KEEPER
from amibuild.local.machines.processes import command_line, descendants, namespace_pids
from amibuild.local.store import Store
from amibuild.wait import Look, until
from tests.conftest import machine_data_dir
from tests.local.host import left_on_host
from tests.local.scenario import Running, amibuild, new_project

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn needs root"),
]

# Read here: a test gets no variable of the shell.
KILLS = int(os.environ.get("AMIBUILD_SOAK_KILLS") or 50)
SEED = os.environ.get("AMIBUILD_SOAK_SEED") or secrets.token_hex(4)

RECIPE = """\
[image]
name = "killed"
[source]
ssm = "/aws/service/debian/release/13/latest/amd64"
[provision]
steps = ["os"]
services = []
"""
# A bake whose machine is gone finds out by asking, and then removes what it made. One whose builder
# was killed while it ended anyway goes on to its proof, which takes minutes on a busy host.
ENDS_S = 900
APPEARS_S = 180
KERNEL_S = 2

Pids = tuple[int, ...]


def depth(pid: int) -> int:
    return len(namespace_pids(pid))


def bake(pids: Pids) -> Pids:
    return pids[:1]


def endpoint(pids: Pids) -> Pids:
    return tuple(pid for pid in pids[1:] if "amibuild.local.endpoint" in command_line(pid))


def supervisor(pids: Pids) -> Pids:
    named = (pid for pid in pids if KEEPER in command_line(pid))
    return tuple(pid for pid in named if depth(pid) == depth(pids[0]))


def leader(pids: Pids) -> Pids:
    """PID 1 of an nspawn machine, two namespaces below the host's."""
    deep = (pid for pid in pids if depth(pid) == depth(pids[0]) + 2)
    return tuple(pid for pid in deep if namespace_pids(pid)[-1:] == (1,))


def qemu(pids: Pids) -> Pids:
    return tuple(pid for pid in pids if "qemu-system" in command_line(pid).split(" ", 1)[0])


def slirp(pids: Pids) -> Pids:
    return tuple(pid for pid in pids if "slirp4netns" in command_line(pid).split(" ", 1)[0])


# Who dies, and up to how many seconds after it has appeared. The builder takes some 10 s, and the
# proof in QEMU a minute; the later instants are fewer, for the time that they take.
VICTIMS: tuple[tuple[Callable[[Pids], Pids], float], ...] = (
    (endpoint, 12),
    (bake, 12),
    (leader, 7),
    (supervisor, 9),
    (qemu, 20),
    (slirp, 9),
    (endpoint, 12),
    (bake, 12),
    (supervisor, 30),
    (endpoint, 60),
    (leader, 7),
    (bake, 60),
)


@dataclass(frozen=True)
class Row:
    victim: str
    instant_s: float
    said_last: str
    bake: int
    found: str
    reaped: str
    seconds: float


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder of this test's own, with the base image that all tests share."""
    folder = tmp_path_factory.mktemp("kills") / "data"
    cache = machine_data_dir() / "local" / "base"
    with Store.open(folder / "local" / "store") as store:
        ensure_base(store, cache, progress=lambda _: None)  # another worker may be making it
    shutil.copytree(cache, folder / "local" / "base", copy_function=os.link)
    yield folder
    shutil.rmtree(folder)


def test_nothing_is_left_whoever_is_killed_at_whatever_instant(
    own_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AMIBUILD_DATA_DIR", str(own_data))
    chance = random.Random(SEED)
    say(capsys, f"\n{KILLS} kills, seed {SEED}\n")
    folder = new_project(tmp_path / "project", recipe=RECIPE)
    assert amibuild(folder, "plan", "--target", "local").exit_code == 0
    order = [VICTIMS[number % len(VICTIMS)] for number in range(KILLS)]
    chance.shuffle(order)
    for number, (victim, span) in enumerate(order, start=1):
        row = one_kill(folder, victim, chance.uniform(0, span))
        say(
            capsys,
            f"{number:2} {row.victim:10} {row.instant_s:5.1f} s  bake {row.bake:3}  "
            f"{row.said_last:32.32} found: {row.found}; reaped: {row.reaped} "
            f"({row.seconds:.0f} s)\n",
        )


def one_kill(folder: Path, victim: Callable[[Pids], Pids], instant_s: float) -> Row:
    """From the start of a bake to the look at what is left of it, which must be nothing."""
    began = monotonic()
    # Gone by itself before the instant: an earlier one, of another bake.
    while (killed := bake_and_kill(folder, victim, instant_s)) is None:
        instant_s /= 2
    exit_code, said_last = killed
    status = amibuild(folder, "local", "status", "--json")
    assert (status.exit_code, status.json["running"]) == (0, False), status.story
    assert left_on_host(grace_s=KERNEL_S) == {}
    reaped = amibuild(folder, "reap", "--target", "local", "--json")
    assert reaped.exit_code == 0, reaped.story
    assert amibuild(folder, "reap", "--target", "local", "--json").json["removed"] == []
    assert left_on_host(grace_s=KERNEL_S) == {}
    assert unproven(Path(os.environ["AMIBUILD_DATA_DIR"])) == []
    return Row(
        victim=victim.__name__,
        instant_s=instant_s,
        said_last=said_last,
        bake=exit_code,
        found=", ".join(status.json["removed"]) or "-",
        reaped=", ".join(one["kind"] for one in reaped.json["removed"]) or "-",
        seconds=monotonic() - began,
    )


def bake_and_kill(
    folder: Path, victim: Callable[[Pids], Pids], instant_s: float
) -> tuple[int, str] | None:
    """The bake's exit code and its last words before the kill; None when the victim was gone."""
    with Running(folder, "bake", "--target", "local") as running:
        process = running.process
        until(
            lambda: Look("not there", victim(descendants(process.pid)) or None),
            what=victim.__name__,
            timeout_s=APPEARS_S,
        )
        try:
            process.wait(instant_s)
        except TimeoutExpired:
            candidates = victim(descendants(process.pid))
        else:
            candidates = ()
        if not candidates:
            process.send_signal(signal.SIGINT)
            process.wait(ENDS_S)
            return None
        said = running.story.read_text(errors="replace").splitlines()
        os.kill(candidates[-1], signal.SIGKILL)
        code = process.wait(ENDS_S)
        story = running.story.read_text(errors="replace")
    # A line of its own: what a killed machine said last is quoted, and may hold one.
    assert "\nTraceback" not in story, story
    return code, said[-1].partition(" ")[2] if said else ""


def unproven(data: Path) -> list[str]:
    """What the account has besides the base and images that were proven: reaped, all of it."""
    with Store.open(data / "local" / "store") as store:
        images = store.images()
        named = {image.snapshot_id for image in images}
        found = [s.id for s in store.snapshots() if s.id not in named]
        for image in images:
            if image.owner != debian.OWNER and image.tags.get("amibuild:verified") != "passed":
                found.append(json.dumps([image.id, image.name]))
        return found


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stderr.write(text)  # of a worker of xdist nobody sees the other
        sys.stderr.flush()
