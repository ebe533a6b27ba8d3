"""A builder that needs no machine: answers each job of a bake as a machine would.

`killed_at` is a bake in a process of its own that kills itself with SIGKILL at a named moment.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from amibuild import signals
from amibuild.attended import Person
from amibuild.aws.session import Cloud
from amibuild.bake import BakeResult, bake
from amibuild.errors import AmibuildError, Interrupted
from amibuild.journal import Shown, StepStarted, Subscriber
from amibuild.names import EndpointAccess
from amibuild.project import Project, load_project
from amibuild.recipe.model import Recipe
from amibuild.scope import OnError
from amibuild.wait import Look, Waiting, until

if TYPE_CHECKING:
    from amibuild.local.machines.script import Outcome

REPOSITORY = Path(__file__).parents[2]
JOB = re.compile(r"/run/amibuild/([a-z0-9-]+)")
# Of a bake with one service: a second one brings no other moments, only more of the same.
STAGES = (
    "preflight", "access", "launch", "connect", "ssm-agent", "os", "logging", "hardening",
    "idle-stop", "minetest", "inventory", "audit", "seal", "shutdown", "capture", "verify",
    "distribute", "record",
)  # fmt: skip
ONE_SERVICE = ('provision.services=["minetest"]',)
INVENTORY = {
    "packages": {"luanti-server": "5.10.0+dfsg-4"},
    "platform_packages": ["qemu-guest-agent"],
    "units_enabled": ["minetest.service"],
    "users": ["root", "svc-minetest"],
    "root_used_bytes": 599_269_376,
    "boot": {"seconds": 1.5, "machine": "none"},
}
LYNIS = {
    "lynis.environment": "container", "lynis.machine": "systemd-nspawn", "lynis.version": "3.1.4",
    "lynis.index": 76, "lynis.floor": 74, "lynis.tests": 242,
    "lynis.open": "BOOT-5122 KRNL-6000", "lynis.lost": "KRNL-6000",
}  # fmt: skip
HYGIENE: dict[str, object] = {"passed": ["the machine id is empty"], "failed": []}


def checks(
    outcome: str = "passed", message: str = "", measures: Mapping[str, object] | None = None
) -> dict[str, object]:
    one = {
        "id": "minetest/test_every_service.py::test_it_listens_on_its_ports",
        "step": "minetest",
        "outcome": outcome,
        "seconds": 0.4,
        "message": message,
        "measures": dict(measures or {}),
    }
    return {"version": 1, "python": "3.13.5", "seconds": 9.1, "exit_code": 0, "checks": [one]}


AUDITED = "hardening/test_lynis.py::test_its_index_is_not_below_the_floor"


def audit(outcome: str = "passed", message: str = "") -> dict[str, object]:
    one = {
        "id": AUDITED,
        "step": "hardening",
        "outcome": outcome,
        "seconds": 19.6,
        "message": message,
        "measures": LYNIS,
    }
    return {"version": 1, "python": "3.13.5", "seconds": 20.1, "exit_code": 0, "checks": [one]}


# The same check on a fresh boot that is a virtual machine.
FRESH: dict[str, object] = {
    "id": AUDITED,
    "step": "hardening",
    "outcome": "passed",
    "seconds": 42.0,
    "message": "",
    "measures": {
        **LYNIS, "lynis.environment": "virtual machine", "lynis.machine": "kvm",
        "lynis.index": 88, "lynis.floor": 85, "lynis.lost": "",
    },
}  # fmt: skip


@dataclass
class Answers:
    """`results` is what a job hands back, `exit_codes` how it ends; others succeed silently."""

    results: dict[str, object] = field(
        default_factory=lambda: {
            "inventory": INVENTORY,
            "audit": audit(),
            "hygiene": HYGIENE,
            "checks": checks(),
        }
    )
    exit_codes: Mapping[str, int] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)

    def __call__(self, script: str) -> Outcome:
        from amibuild.local.machines.script import Outcome

        found = JOB.search(script)
        if found is None or "amibuild-reply" not in script:
            return Outcome()  # a piece of a payload
        job = found[1]
        self.jobs.append(job)
        result = json.dumps(self.results[job]).encode() if job in self.results else b""
        exit_code = self.exit_codes.get(job, 0)
        said = reply(exit_code, f"{self.says(job)}\n".encode(), result)
        return Outcome(exit_code=exit_code, stdout=said)

    def says(self, job: str) -> str:
        return f"{job} says hello"


def reply(exit_code: int, log: bytes, result: bytes) -> str:
    """The lines that the end of a job prints: see communicator/unit.py."""
    return announce(exit_code, pack(log, result))


def scripted(job: str, result: object, times: int | None = None) -> dict[str, object]:
    """A line of an endpoint's script: what the machine sends for this job, so many times."""
    said = reply(0, b"", b"" if result is None else json.dumps(result).encode())
    packed = base64.b64encode(said.encode()).decode()
    match = rf"(?s)^(?=.*?/run/amibuild/{job}\b)(?=.*amibuild-reply)"
    return {"match": match, "stdout_base64": packed, "times": times}


def pack(log: bytes, result: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("log", log), ("result", result)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def announce(exit_code: int, packed: bytes) -> str:
    digest = hashlib.sha256(packed).hexdigest()
    head = f"amibuild-reply {exit_code} {len(packed)} {digest}\n"
    return head + base64.b64encode(packed).decode()


def new_project(folder: Path, overrides: Sequence[str] = ONE_SERVICE) -> Project:
    """The shipped recipe; without overrides with all of its services."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "amibuild.toml", folder)
    return load_project(folder / "amibuild.toml", overrides)


def changed(project: Project, **sections: Mapping[str, object]) -> Project:
    """The project with other values in its recipe."""
    body = project.recipe.model_dump(mode="json", exclude_none=True)
    for section, values in sections.items():
        body[section] = {**body[section], **values}
    return replace(project, recipe=Recipe.model_validate(body))


def run(
    project: Project,
    cloud: Cloud,
    *subscribers: Subscriber,
    if_changed: bool = False,
    on_error: OnError = OnError.CLEAN,
    resume: str | None = None,
    lock_timeout_s: float = 0.0,
    person: Person | None = None,
    pause_before: str | None = None,
) -> BakeResult:
    told: list[BakeResult] = []
    result = bake(
        project,
        cloud,
        target="local",
        if_changed=if_changed,
        on_error=on_error,
        subscribers=subscribers,
        on_result=told.append,
        resume=resume,
        lock_timeout_s=lock_timeout_s,
        person=person,
        pause_before=pause_before,
    )
    assert told == [result]
    return result


def die_at(when: str) -> Subscriber:
    """Killed when that stage begins, or at an event of the journal such as `created:2`."""
    heard: Counter[str] = Counter()

    def hear(shown: Shown) -> None:
        if isinstance(shown, Waiting):
            return
        heard[shown.event] += 1
        stage = isinstance(shown, StepStarted) and shown.step == when
        if stage or f"{shown.event}:{heard[shown.event]}" == when:
            os.kill(os.getpid(), signal.SIGKILL)

    return hear


def held_up(gate: Path) -> Subscriber:
    """At the first step it waits until that file is there."""

    def hear(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == "os":
            until(lambda: Look("shut", gate.exists() or None), what=str(gate), timeout_s=60)

    return hear


def killed_at(moment: str, url: str, folder: Path) -> int | None:
    """How a bake's process ended that dies at that moment; what it said is in `folder`/said.

    It is forked from a process in which all is imported and read already: 0.3 s, where a new
    interpreter takes 2 s to get as far.
    """
    process = started(url, folder, die_at=moment)
    process.join()
    return process.exitcode


def started(
    url: str, folder: Path, *, die_at: str = "", gate: Path | None = None, lock_timeout_s: float = 0
) -> BaseProcess:
    """A bake in a process of its own; its exit code is 0 or that of its error, its last words are
    the image's id or the error."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.contract.warm"])
    process = context.Process(
        target=_bake, args=(url, folder, die_at, gate, lock_timeout_s), daemon=True
    )
    process.start()
    return process


def _bake(url: str, folder: Path, moment: str, gate: Path | None, lock_timeout_s: float) -> None:
    project = new_project(folder)
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    cloud = Cloud(region="us-east-1", access=EndpointAccess(url, "AKIAIOSFODNN7EXAMPLE", "x"))
    hearing = [die_at(moment), *([held_up(gate)] if gate else [])]
    with signals.catch():
        try:
            result = run(project, cloud, *hearing, lock_timeout_s=lock_timeout_s)
        except (AmibuildError, Interrupted) as error:
            sys.stdout.write(error.message)
            sys.exit(error.exit_code)
        sys.stdout.write(result.image_id)
