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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amibuild import proc
from amibuild.control import (
    HOST,
    STATUS_S,
    Announced,
    Silent,
    announced,
    ask,
    read,
    request,
)
from amibuild.errors import AmibuildError, HostError, UsageError, WaitTimeout
from amibuild.journal import KEPT_TO_RESUME
from amibuild.local.settings import AUTO, Settings, folder_of
from amibuild.names import EndpointAccess
from amibuild.wait import Look, until

log = logging.getLogger(__name__)

# Another amibuild may be making the base image: a minute, and more on a slow network.
BUSY_S = 900.0
# Its machines are killed, not shut down: seconds. A machine that resists is told in its log.
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
    began: int | None
    machine: str
    settings: Mapping[str, Any]
    owned: bool

    def is_gone(self) -> bool:
        return proc.has_ended(self.pid, self.began)


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
    keep: Callable[[], bool] = lambda: False,
    progress: Progress = log.info,
    data: Path | None = None,
    base: bool = True,
) -> Iterator[LocalEndpoint]:
    """The endpoint that runs already, or a new one that ends with this context.

    `keep`, which is asked when the body fails, leaves it running, machines and all, until `local
    down`. Without `base` no base image is made: enough for a look at what is there.
    Raises: HostError, with the hint of what refused.
    """
    folder = data or data_dir()
    with _opened(folder, Settings(machine=machine), base, progress) as (endpoint, _):
        store = folder / folder_of(endpoint.machine)
        try:
            yield replace(endpoint, place=str(store.resolve()))
        except Exception as error:  # not an interrupt, which cleans up: nothing is kept then
            if keep() or _waits_for_more(error):
                with suppress(HostError):  # the body's own failure is the one to tell
                    keep_running(folder)
                    progress(
                        "the local endpoint stays, with its machines: `amibuild local down` ends it"
                    )
            raise


def _waits_for_more(error: Exception) -> bool:
    """Whether something of the account is to be gone on with."""
    left = error.leftovers if isinstance(error, AmibuildError) else ()
    return any(one.reason == KEPT_TO_RESUME for one in left)


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
        keep_running(folder)
        return endpoint


def keep_running(data: Path | None = None) -> None:
    """Whoever started it: it no longer ends with that process, but with `local down`."""
    known = announced(data or data_dir())
    if known is not None:
        ask(known, "POST", "keep")


def status(data: Path | None = None) -> dict[str, Any] | None:
    """The running endpoint and its instances, as its own JSON; None when none runs.

    One that is about to end is waited for. Raises: Silent; WaitTimeout.
    """
    known = announced(data or data_dir())
    if known is None:
        return None

    def look() -> Look[dict[str, Any]]:
        if known.has_ended:
            return Look("ended", {})
        said = ask(known, "GET", "lifetime")
        if said is None or said["ending"]:
            return Look("ending")
        return Look("running", ask(known, "GET", "status", timeout_s=STATUS_S))

    return until(look, what=named(known.pid), timeout_s=END_S) or None


def tidy(data: Path | None = None, *, progress: Progress = log.info) -> tuple[str, ...]:
    """Removes what a killed endpoint left on this host; what that was. Nothing while one runs.

    Raises: HostError, WaitTimeout.
    """
    from amibuild.local import leftovers

    found = leftovers.tidy((data or data_dir()) / "local")
    for left in found:
        progress(f"removed what a killed endpoint left: {left}")
    return found


def named(pid: int) -> str:
    return f"the endpoint (process {pid})"


def holder_of(root: Path) -> int | None:
    """The process that has the store of `root` open."""
    from amibuild.local.durable import holder
    from amibuild.local.leftovers import STORE

    return holder(root / STORE)


class _Child:
    """The endpoint's process, which ends when this end of the pipe is closed."""

    def __init__(self, process: proc.Process, pipe: int, log_file: Path) -> None:
        self.process = process
        self.log_file = log_file
        self.known: Announced | None = None  # until it is ready
        self._pipe = pipe

    def ask(self, method: str, path: str) -> dict[str, Any] | None:
        return ask(self.known, method, path) if self.known else None

    def end(self) -> None:
        """Lets go of it: it ends with its machines, unless somebody else needs it."""
        os.close(self._pipe)
        if self.process.stdout is not None:
            self.process.stdout.close()
        try:
            until(self._look, what=named(self.process.pid), timeout_s=END_S)
        except WaitTimeout as error:
            log.warning("%s: it is killed; its log is %s", error, self.log_file)
            self.process.kill()
            self.process.wait()

    def _look(self) -> Look[bool]:
        if self.process.poll() is not None:
            return Look("ended", True)
        try:
            said = self.ask("GET", "lifetime")
        except Silent:
            return Look("not answering")
        if said is not None and not (said["owned"] or said["ending"]):
            # It stays. Popen would warn that nobody waits for it.
            self.process.returncode = 0
            return Look("needed by others", True)
        return Look("ending")


class _Busy(Exception):
    """Another process has the store, and may be about to serve it, or to let go of it."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


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
    root = data / "local" / folder_of(asked.machine)

    def look() -> Look[_Joined | tuple[LocalEndpoint, _Child]]:
        nonlocal told
        joined = _join(data, asked)
        if joined is not None:
            return Look("running", joined)
        # Asked before a process is started for nothing, ten times a second.
        pid = holder_of(root)
        if pid is None:
            try:
                return Look("started", _start(data, asked, base, progress))
            except _Busy as busy:
                pid = busy.pid
        who = f"process {pid}" if pid else "another process"
        if not told:
            progress(f"waiting for {who}, which has the local target's store open")
        told = True
        return Look(f"held by {who}")

    return until(
        look,
        what="the local target's store",
        timeout_s=BUSY_S,
        hint="amibuild local down --force ends who starts or ends there",
    )


def _join(data: Path, asked: Settings) -> _Joined | None:
    """Raises: HostError when it is not as asked for; Silent."""
    known = announced(data)
    if known is None:
        return None
    try:
        connection, answer = request(known, "GET", "join")
    except (OSError, http.client.HTTPException):
        # It is about to end, or has.
        return None
    if answer.status != http.client.OK:
        connection.close()
        return None
    differences = asked.differences({**known.settings, "--port": str(known.port)})
    if differences:
        answer.close()
        raise HostError(
            f"the endpoint that runs here was started with {'; '.join(differences)}",
            hint="amibuild local down",
        )
    return _Joined(_endpoint(known, owned=False), answer)


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
        child.known = _ready(child, progress)
        return _endpoint(child.known, owned=True), child
    except BaseException:
        child.end()
        raise


def _python_path() -> dict[str, str]:
    ours = str(Path(__file__).parents[1])
    return {"PYTHONPATH": os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))}


def _ready(child: _Child, progress: Progress) -> Announced:
    """What it says of itself, once it serves.

    Raises: HostError with what it said instead; _Busy.
    """
    assert child.process.stdout is not None
    for line in child.process.stdout:
        with suppress(ValueError):
            said = json.loads(line)
            if "progress" in said:
                progress(said["progress"])
            elif "ready" in said:
                return read(said)
            elif said.get("busy") is not None:
                raise _Busy(said["busy"])
            elif "error" in said:
                kind = UsageError if said["usage"] else HostError
                raise kind(said["error"], hint=said.get("hint"))
    last = child.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    raise HostError(
        "the local endpoint ended before it was ready:\n" + "\n".join(last),
        hint=f"its log is {child.log_file}",
    )


def _endpoint(known: Announced, *, owned: bool) -> LocalEndpoint:
    return LocalEndpoint(
        url=f"http://{HOST}:{known.port}",
        access_key_id=known.access_key_id,
        secret_access_key=known.secret,
        pid=known.pid,
        began=known.began,
        machine=known.machine,
        settings=known.settings,
        owned=owned,
    )
