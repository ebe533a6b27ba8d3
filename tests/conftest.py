"""What holds for every test: no account, no way out of this machine, golden files on request."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

GOLDEN = Path(__file__).parent / "golden"
DRIVER_TESTS = "tests/local/machines/"
MACHINE_TESTS = ("tests/local/", "tests/soak/")
# They look at the bake of the shipped recipe, which takes minutes: see tests/local/conftest.py.
BAKED_TESTS = tuple(
    f"tests/local/test_{name}.py" for name in ("scenario", "firewall_on_machine", "replay")
)
LOOPBACK = ("127.", "::1", "localhost")

# A full disk fails every test after it, slowly, and none of them says why.
LEAST_FREE_GIB = 3

Golden = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what the tests see to tests/golden/"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`soak` runs only when it is asked for by name: `pytest -m soak`."""
    if "soak" in (config.option.markexpr or ""):
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if item not in soak]


def pytest_collection_finish() -> None:
    """What was collected stays to the end: looking through it for garbage took a tenth and more of
    the time of contract tests."""
    gc.collect()
    gc.freeze()


class MachinesBesideTheRest(LoadScopeScheduling):  # type: ignore[misc]  # it ships no types
    """A file's tests stay together, and those of the files that look at one bake.

    The last worker begins with what boots no machine, the others with what does: who waits for a
    machine leaves its core to who computes. Whoever is done with its kind goes on with the other.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return BAKED_TESTS[0] if file in BAKED_TESTS else file

    def _assign_work_unit(self, node: Any) -> None:
        """Of machine tests first the bake, then the files of few tests, for those are long stories.

        The drivers' last: their virtual machines, which want both cores, are not beside the bake's.
        """
        others = node is self.nodes[-1]

        def turn(scope: str) -> tuple[int, ...]:
            if not scope.startswith(MACHINE_TESTS):
                return (not others,)
            tests = len(self.workqueue[scope])
            if scope.startswith(DRIVER_TESTS):
                return (others, 2, -tests)
            return (others, scope != BAKED_TESTS[0], tests)

        self.workqueue.move_to_end(min(self.workqueue, key=turn), last=False)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> MachinesBesideTheRest:
    """In place of `--dist loadgroup`, which pytest 9.2 made xdist 3.8 ignore in silence."""
    return MachinesBesideTheRest(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Ends the run, with the reason, before the disk is full."""
    for folder in {Path(tempfile.gettempdir()), machine_data_dir().parent}:
        free_gib = shutil.disk_usage(folder).free / (1 << 30)
        if free_gib < LEAST_FREE_GIB:
            left = f"{free_gib:.1f} GiB are free where {folder} is"
            reason = f"{left}, and tests need {LEAST_FREE_GIB} GiB"
            # Not pytest.exit: in a worker of xdist its reason is lost.
            item.session.shouldfail = reason
            pytest.fail(reason)


@pytest.fixture(autouse=True)
def no_account(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No variable of the developer's shell reaches a test, and no file of its account."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AMIBUILD_")) and name != "AMIBUILD_TEST_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    if request.node.get_closest_marker("machine") is None:
        monkeypatch.setenv("AMIBUILD_DATA_DIR", str(tmp_path / "data"))
    else:
        monkeypatch.setenv("AMIBUILD_DATA_DIR", str(machine_data_dir()))


def machine_data_dir() -> Path:
    """Shared by all machine tests of a worker, which look at what is left in it, and over runs.

    The base image, which takes a minute to make, is shared by all workers: its folder has a lock.
    """
    named = os.environ.get("AMIBUILD_TEST_DATA")
    shared = Path(named) if named else Path(__file__).parents[1] / ".amibuild-test"
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return shared
    base = shared / "local" / "base"
    link = shared / worker / "local" / "base"
    if not link.is_symlink():
        base.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(base.resolve())
    return shared / worker


@pytest.fixture(autouse=True)
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection off loopback fails, except to the machines' own addresses.

    It holds for this process. What a machine test starts has a network of its own.
    """
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if not host.startswith((*LOOPBACK, "10.213.")):
                raise PermissionError(f"a test tried to reach {host}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares a text with tests/golden/<name>, or writes it with --update-golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"{path} is stale; refresh with --update-golden"

    return compare
