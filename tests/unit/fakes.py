"""Fakes of our own seams: they run for real what can be run here, and refuse the unexpected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from amibuild import proc
from amibuild.aws.ssm import STDOUT_LIMIT, Invocation, Ssm
from amibuild.communicator import shell
from amibuild.journal import BakeStarted
from tests.unit.systemd import Systemd

STARTED = BakeStarted(
    at=datetime(2026, 11, 22, 10, 15, tzinfo=UTC),
    bake_id="20261122-101500-a1b2c3",
    image="game-host",
    digest="3f" * 32,
    target="local",
    region="us-east-1",
    source_ami="ami-1",
    recipe="/here/amibuild.toml",
    pid=7,
    version="0.1.0",
)


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 10, 15, tzinfo=UTC) + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.elapsed += seconds


class ShellSsm(Ssm):
    """Run Command by this machine's own shell: real output, real exit codes, SSM's limits.

    `before` are lines in front of each command, and `shell` runs them. The process that runs one
    is named in the file `agent`, for a script that ends it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before = ""
        self.shell = ["sh", "-s"]
        self.systemd = Systemd(root.with_name(f"{root.name}-systemd"))
        self.agent = root.with_name(f"{root.name}-agent")
        self.sent: list[str] = []
        self.cancelled: list[str] = []
        self.done: dict[str, Invocation] = {}

    def send(self, instance_id: str, script: str, *, comment: str, timeout_s: int) -> str:
        self.sent.append(script)
        command_id = f"command-{len(self.sent)}"
        self.done[command_id] = self.ran(script)
        return command_id

    def ran(self, script: str) -> Invocation:
        here = f"echo $$ >{self.agent}\n{self.before}{self.systemd.path}{script}"
        here = here.replace(shell.WORK, str(self.root))
        ran = proc.run(self.shell, stdin=here.encode(), check=False)
        lost = ran.exit_code < 0
        return Invocation(
            status="Success" if ran.exit_code == 0 else "Failed",
            details="Undeliverable" if lost else "Failed" if ran.exit_code else "Success",
            exit_code=None if lost else ran.exit_code,
            stdout=ran.stdout.decode(errors="replace")[:STDOUT_LIMIT],
            stderr=ran.stderr.decode(errors="replace")[:8000],
        )

    def invocation(self, command_id: str, instance_id: str) -> Invocation:
        return self.done[command_id]

    def cancel(self, command_id: str, instance_id: str) -> None:
        self.cancelled.append(command_id)
