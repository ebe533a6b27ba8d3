"""Starts the EC2 on this machine when a verb needs it, joins the one that runs, ends what it began.

The endpoint is a process of its own (`amibuild.local.endpoint`): it ends with whoever needs it, by
whatever that dies, and its machines with it. Everybody else talks boto3 to the address it gives.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amibuild import proc
from amibuild.control import ASK_S, HOST, ask, has_ended, written
from amibuild.errors import HostError, UsageError, WaitTimeout
from amibuild.local.settings import AUTO, Settings
from amibuild.names import EndpointAccess
from amibuild.wait import Look, until

log = logging.getLogger(__name__)

# Any key works; this one has the length and letters of a real one, which moto looks for.
ACCESS_KEY_ID = "AKIAAMIBUILDLOCAL000"
SECRET_ACCESS_KEY = "local"  # it opens nothing
# Another amibuild may be making the base image: a minute, and more on a slow network.
BUSY_S = 900.0
# Its machines are killed, not shut down: seconds. A machine that resists is told in its log.
LETTING_GO_S = 2.0
END_S = 90.0
LOG_LIMIT_BYTES = 1024 * 1024
LOG_TAIL_LINES = 20

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LocalEndpoint(EndpointAccess):
    """`owned` tells whether it was started here, and so ends here.

    `settings` is what it was started with, by option (settings.py).
    """

    pid: int
    machine: str
    settings: Mapping[str, Any]
    owned: bool

    def is_gone(self) -> bool:
        return has_ended(self.pid)


def data_dir() -> Path:
    """Where the local target keeps its images: $AMIBUILD_DATA_DIR, else the user's data folder."""
    named = os.environ.get("AMIBUILD_DATA_DIR")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("amibuild")


@contextmanager
def open_endpoint(
    *,
    machine: str = AUTO,
    keep: bool = False,
    progress: Progress = log.info,
    data: Path | None = None,
    base: bool = True,
) -> Iterator[LocalEndpoint]:
    """The endpoint that runs already, or a new one that ends with this context.

    `keep` leaves it running when the body fails, machines and all, until `local down`. Without
    `base` no base image is made: enough for a look at what is there.
    Raises: HostError, with the hint of what refused.
    """
    folder = data or data_dir()
    with _opened(folder, Settings(machine=machine), base, progress) as (endpoint, child):
        try:
            yield endpoint
        except Exception:  # not an interrupt, which has cleaned up: nothing is kept then
            if keep and child is not None:
                ask(child.port, "POST", "keep")
            raise


def start_detached(
    *,
    settings: Settings | None = None,
    progress: Progress = log.info,
    data: Path | None = None,
) -> LocalEndpoint:
    """The endpoint that runs already, or a new one that stays: `local up`.

    Raises: HostError, also when the one that runs is not as asked for; UsageError.
    """
    folder = data or data_dir()
    asked = settings or Settings()
    asked.check()
    with _opened(folder, asked, True, progress) as (endpoint, _):
        ask(int(endpoint.url.rpartition(":")[2]), "POST", "keep")
        return endpoint


def status(data: Path | None = None) -> dict[str, Any] | None:
    """The running endpoint and its instances, as its own JSON; None when none runs.

    One that is about to end is waited for. Raises: WaitTimeout.
    """
    facts = written(data or data_dir())
    if facts is None:
        return None

    def look() -> Look[dict[str, Any]]:
        said = ask(facts["port"], "GET", "status")
        return Look("ending", None if said and said["ending"] else said or {})

    return until(look, what=f"the endpoint (process {facts['pid']})", timeout_s=END_S) or None


def tidy(data: Path | None = None, *, progress: Progress = log.info) -> tuple[str, ...]:
    """Removes what a killed endpoint left on this host; what that was. Nothing while one runs.

    Raises: HostError, WaitTimeout.
    """
    from amibuild.local import leftovers

    found = leftovers.tidy((data or data_dir()) / "local")
    for left in found:
        progress(f"removed what a killed endpoint left: {left}")
    return found


def stop(data: Path | None = None, *, force: bool = False) -> bool:
    """Ends the running endpoint with its machines: `local down`. False when none runs.

    `force` ends it under those who use it, too.
    Raises: UsageError when a bake or another verb uses it; WaitTimeout.
    """
    folder = data or data_dir()
    facts = written(folder)
    if facts is None or ask(facts["port"], "GET", "status") is None:
        return False
    if not force:
        _await_unused(facts["port"])
    ask(facts["port"], "POST", "stop")

    def look() -> Look[bool]:
        ended = has_ended(facts["pid"])
        return Look("ended" if ended else "still there", True if ended else None)

    return until(look, what=f"the endpoint (process {facts['pid']})", timeout_s=END_S)


def _await_unused(port: int) -> None:
    """Raises: UsageError. One that has just ended is noticed a moment later."""

    def look() -> Look[bool]:
        said = ask(port, "GET", "status")
        used = said is not None and bool(said["owned"] or said["joined"])
        return Look("in use" if used else "unused", None if used else True)

    try:
        until(look, what="the endpoint's users to end", timeout_s=LETTING_GO_S)
    except WaitTimeout:
        raise UsageError(
            "a bake or another amibuild uses the endpoint",
            hint="wait for it, end it with Ctrl-C, or add --force to end the machines under it",
        ) from None


class _Child:
    """The endpoint's process, which ends when this end of the pipe is closed."""

    def __init__(self, process: proc.Process, pipe: int, log_file: Path) -> None:
        self.process = process
        self.log_file = log_file
        self.port = 0  # until it is ready
        self._pipe = pipe

    def end(self) -> None:
        """Lets go of it: it ends with its machines, unless somebody else needs it."""
        os.close(self._pipe)
        if self.process.stdout is not None:
            self.process.stdout.close()
        try:
            until(self._look, what=f"the endpoint (process {self.process.pid})", timeout_s=END_S)
        except WaitTimeout as error:
            log.warning("%s: it is killed; its log is %s", error, self.log_file)
            self.process.kill()
            self.process.wait()

    def _look(self) -> Look[bool]:
        if self.process.poll() is not None:
            return Look("ended", True)
        said = ask(self.port, "GET", "status") if self.port else None
        if said is not None and not (said["owned"] or said["ending"]):
            # It stays. Popen would warn that nobody waits for it.
            self.process.returncode = 0
            return Look("needed by others", True)
        return Look("ending")


class _Busy(Exception):
    """Another process has the store, and may be about to serve it, or to let go of it."""


@contextmanager
def _opened(
    data: Path, asked: Settings, base: bool, progress: Progress
) -> Iterator[tuple[LocalEndpoint, _Child | None]]:
    found = _join_or_start(data, asked, base, progress)
    if isinstance(found, _Joined):
        with found.held():
            yield found.endpoint, None
        return
    endpoint, child = found
    try:
        yield endpoint, child
    finally:
        child.end()


@dataclass(frozen=True)
class _Joined:
    """While the answer is being read, the endpoint knows that somebody needs it."""

    endpoint: LocalEndpoint
    answer: http.client.HTTPResponse

    @contextmanager
    def held(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.answer.close()


def _join_or_start(
    data: Path, asked: Settings, base: bool, progress: Progress
) -> _Joined | tuple[LocalEndpoint, _Child]:
    told = False

    def look() -> Look[_Joined | tuple[LocalEndpoint, _Child]]:
        nonlocal told
        joined = _join(data, asked)
        if joined is not None:
            return Look("running", joined)
        try:
            return Look("started", _start(data, asked, base, progress))
        except _Busy:
            if not told:
                progress("waiting for another amibuild, which has the local target's store open")
            told = True
            return Look("held by another amibuild")

    return until(
        look,
        what="the local target's store",
        timeout_s=BUSY_S,
        hint="amibuild local status says who has it",
    )


def _join(data: Path, asked: Settings) -> _Joined | None:
    facts = written(data)
    if facts is None:
        return None
    connection = http.client.HTTPConnection(HOST, facts["port"], timeout=ASK_S)
    try:
        connection.request("GET", "/amibuild/join")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ConnectionError("it is no endpoint of ours")
    except (OSError, http.client.HTTPException):
        # Killed, and the file is what it left; or it is about to end.
        connection.close()
        return None
    differences = asked.differences(facts["settings"])
    if differences:
        answer.close()
        raise HostError(
            f"the endpoint that runs here was started with {'; '.join(differences)}",
            hint="amibuild local down",
        )
    return _Joined(_endpoint(facts, owned=False), answer)


def _start(
    data: Path, asked: Settings, base: bool, progress: Progress
) -> tuple[LocalEndpoint, _Child]:
    folder = data / "local"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log_file = folder / "endpoint.log"
    if log_file.exists() and log_file.stat().st_size > LOG_LIMIT_BYTES:
        log_file.unlink()
    reading, writing = os.pipe()
    # Not from the working folder (-P), which may hold another amibuild, but this very one.
    words: list[str | Path] = [sys.executable, "-P", "-m", "amibuild.local.endpoint"]
    words += ["--data", data, *asked.argv(), "--owner-fd", str(reading)]
    words += [] if base else ["--no-base"]
    try:
        with log_file.open("ab") as stderr:
            process = proc.start(
                words, stdout=proc.PIPE, stderr=stderr, pass_fds=(reading,), env=_python_path()
            )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    child = _Child(process, writing, log_file)
    try:
        facts = _ready(child, progress)
        child.port = facts["port"]
        return _endpoint(facts, owned=True), child
    except BaseException:
        child.end()
        raise


def _python_path() -> dict[str, str]:
    ours = str(Path(__file__).parents[1])
    return {"PYTHONPATH": os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))}


def _ready(child: _Child, progress: Progress) -> Mapping[str, Any]:
    """Its facts, once it serves. Raises: HostError with what it said instead; _Busy."""
    assert child.process.stdout is not None
    for line in child.process.stdout:
        with suppress(ValueError):
            said = json.loads(line)
            if "progress" in said:
                progress(said["progress"])
            elif "ready" in said:
                return dict(said)
            elif said.get("busy") is not None:
                raise _Busy(said["error"])
            elif "error" in said:
                kind = UsageError if said["usage"] else HostError
                raise kind(said["error"], hint=said.get("hint"))
    last = child.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    raise HostError(
        "the local endpoint ended before it was ready:\n" + "\n".join(last),
        hint=f"its log is {child.log_file}",
    )


def _endpoint(facts: Mapping[str, Any], *, owned: bool) -> LocalEndpoint:
    return LocalEndpoint(
        url=f"http://{HOST}:{facts['port']}",
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=SECRET_ACCESS_KEY,
        pid=facts["pid"],
        machine=facts["machine"],
        settings=facts["settings"],
        owned=owned,
    )
