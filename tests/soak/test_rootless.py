"""The scenario as a user who is not root: QEMU builds and proves, in namespaces of the user's own.

The host gets no such user: see as_stranger.sh. Run it as root, which a mount namespace needs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.local.machines.cgroups import KEEPER
from amibuild.local.machines.processes import command_line, descendants
from amibuild.wait import Look, until
from tests.local.host import left_on_host, on_host
from tests.local.scenario import REPOSITORY, Called, new_project

pytestmark = [
    pytest.mark.machine,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user"),
]
AS_STRANGER = Path(__file__).with_name("as_stranger.sh")
UID = 12345
# udev's mode, and what is usual in containers.
OPEN, CLOSED = "666", "600"
# 5 min 40 s measured on two cores that others used too, making the base image included.
BAKE_S = 3600
RECIPE = """\
[image]
name = "rootless"
[source]
ssm = "/aws/service/debian/release/13/latest/amd64"
[provision]
steps = ["os"]
services = []
"""


@dataclass(frozen=True)
class Stranger:
    home: Path

    @property
    def project(self) -> Path:
        return self.home / "project"

    def argv(self, *words: str, tun: str) -> list[str]:
        reachable = dict.fromkeys([sys.base_prefix, sys.prefix, str(REPOSITORY), str(self.home)])
        script = 'cd "$1"; shift; exec "$@"'
        cli = [sys.executable, "-B", "-m", "amibuild.cli.main", *words]
        inside = ["sh", "-c", script, "sh", str(self.project), *cli]
        return [str(AS_STRANGER), str(UID), str(self.home), tun, *reachable, "--", *inside]

    def amibuild(self, *words: str, tun: str = OPEN) -> Called:
        done = proc.run(self.argv(*words, tun=tun), check=False, timeout_s=BAKE_S)
        return Called(done.exit_code, done.text, done.stderr.decode(errors="replace"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    """One for all: the base image is made once."""
    home = tmp_path_factory.mktemp("stranger")
    new_project(home / "project", recipe=RECIPE)
    for path in (home, *home.rglob("*")):
        os.chown(path, UID, UID)
    yield Stranger(home)
    shutil.rmtree(home)


@pytest.fixture(autouse=True)
def strangers_data(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the looks at the host look: the stranger's own default."""
    monkeypatch.setenv("AMIBUILD_DATA_DIR", str(stranger.home / ".local/share/amibuild"))


def test_the_doctor_says_what_is_used_instead(stranger: Stranger) -> None:
    said = stranger.amibuild("doctor", "--json")
    assert said.exit_code == 0, said.story
    assert said.json["plan"].startswith("builds and proves with QEMU")
    assert said.json["abilities"]["network"]["works"]
    closed = stranger.amibuild("doctor", "--json", tun=CLOSED)
    assert closed.json["abilities"]["network"]["missing"] == ["/dev/net/tun is root's"]
    assert closed.json["command"] == "sudo chmod 0666 /dev/net/tun"


@pytest.mark.parametrize("tun", [OPEN, CLOSED], ids=["own-network", "no-tun"])
def test_a_bake_ends_with_a_verified_image(stranger: Stranger, tun: str) -> None:
    done = stranger.amibuild("bake", "--machine", "auto", "--json", tun=tun)
    assert done.exit_code == 0, done.story
    assert done.json["verified"] is True
    manifest = json.loads(Path(done.json["manifest"]).read_text())
    assert [step["exit_code"] for step in manifest["steps"]] == [0, 0, 0]
    assert left_on_host() == {}


@pytest.mark.parametrize("tun", [OPEN, CLOSED], ids=["own-network", "no-tun"])
@pytest.mark.parametrize("victim", ["endpoint", "supervisor", "qemu"])
def test_after_kill_9_the_next_look_finds_nothing(
    stranger: Stranger, tun: str, victim: str
) -> None:
    with (stranger.project / "story").open("wb") as story:
        bake = proc.start(stranger.argv("bake", tun=tun), stderr=story)
    try:
        os.kill(until(lambda: find(bake.pid, victim), what=victim, timeout_s=300), signal.SIGKILL)
        code = bake.wait(300)
    finally:
        bake.kill()
        bake.wait()
    assert code in {1, 4}, (stranger.project / "story").read_text()
    assert not stranger.amibuild("local", "status", "--json", tun=tun).json["running"]
    assert left_on_host(grace_s=2) == {}
    assert stranger.amibuild("reap", "--target", "local", tun=tun).exit_code == 0
    assert on_host() == {}


def find(bake: int, victim: str) -> Look[int]:
    """Each of them only once QEMU runs, or there would be nothing to leave."""
    pids = descendants(bake)
    words = {pid: command_line(pid) for pid in pids}
    machines = [pid for pid in pids if "qemu-system" in words[pid].split(" ", 1)[0]]
    named = {"endpoint": "amibuild.local.endpoint", "supervisor": KEEPER}
    if not machines:
        return Look("no machine yet")
    found = machines
    if victim != "qemu":
        found = [pid for pid in pids if named[victim] in words[pid]]
    return Look(victim, found[0])
