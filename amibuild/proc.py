"""The only door to other programs on this machine.

Arguments are lists, never shell text. A failure carries the program's own last words.
"""

from __future__ import annotations

import errno
import getpass
import logging
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from amibuild.errors import HostError

log = logging.getLogger(__name__)

Process = subprocess.Popen[bytes]
PIPE = subprocess.PIPE
# Debian keeps these out of the path of a user who is not root, and some of ours live there.
SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class ProcessFailed(HostError):
    """A program on this machine ended with an exit code other than 0."""

    def __init__(self, argv: Sequence[str], exit_code: int, output: str) -> None:
        last = "\n".join(output.strip().splitlines()[-20:])
        super().__init__(f"{shlex.join(argv)} ended with exit code {exit_code}\n{last}".rstrip())
        self.argv = tuple(argv)
        self.status = exit_code
        self.output = output


@dataclass(frozen=True)
class Finished:
    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


def which(program: str) -> Path | None:
    """Where a program is, the system folders included; None when it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_PATHS])
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Finished:
    """Runs a program to its end.

    Raises: ProcessFailed on an exit code other than 0, unless `check` is off; HostError when the
    program is not there or takes longer than `timeout_s`.
    """
    words = _words(argv)
    log.debug("run %s", shlex.join(words))
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
            cwd=cwd,
            env=_environment(env),
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{shlex.join(words)} took longer than {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        output = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
        raise ProcessFailed(words, done.returncode, output)
    return Finished(done.returncode, done.stdout, done.stderr)


def start(
    argv: Sequence[str | Path],
    *,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = True,
) -> Process:
    """Starts a program and returns at once. The caller owns it, and must end it.

    A new session keeps the terminal's Ctrl-C away from it: the caller decides when it ends.
    """
    words = _words(argv)
    log.debug("start %s", shlex.join(words))
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.DEVNULL if stderr is None else stderr,
        env=_environment(env),
        pass_fds=tuple(pass_fds),
        start_new_session=new_session,
    )


def never_stops(process: Process) -> None:
    """From now on it goes on whenever somebody stops it, until it has ended.

    nsenter stops itself when its child is stopped, as systemd-shutdown does with all of a machine.
    Nobody would wait for that child then, and a machine ends with its last process only.
    """

    def watch() -> None:
        with suppress(ChildProcessError, ProcessLookupError):  # it has been waited for
            while True:
                seen = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                if seen is None or seen.si_code != os.CLD_STOPPED:
                    return
                os.kill(process.pid, signal.SIGCONT)

    threading.Thread(target=watch, name=f"never-stops-{process.pid}", daemon=True).start()


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as CI containers have
        return str(os.getuid())


def place() -> str:
    """Within what a process id and its beginning mean one process: this boot, this namespace.

    Empty where that can't be told. Source: proc(5), sys/kernel/random; namespaces(7).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def began(pid: int) -> int | None:
    """When a process began, in clock ticks since boot: with its number, who it is.

    None when there is none, or /proc is not there. Source: proc(5), stat, field 22.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def has_ended(pid: int, began_at: int | None) -> bool:
    """Whether that process is no more, down to its last thread: its locks are free then.

    Its number may be another's by now, which began at another time.
    """
    if not Path("/proc/self").exists():  # not on Linux: it will be noticed in other ways
        return False
    try:
        process = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):  # nobody's, or that of another's thread
            return True
        # No descriptor is left, or a sandbox knows no such call.
        fields = _stat(pid)
        return not fields or fields[0] in "ZX" or began_at not in (None, int(fields[19]))
    try:
        look = select.poll()
        look.register(process, select.POLLIN)
        if look.poll(0):
            return True
    finally:
        os.close(process)
    now = began(pid)
    return now is None or began_at not in (None, now)


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold anything; the first is the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _words(argv: Sequence[str | Path]) -> list[str]:
    words = [str(word) for word in argv]
    program = which(words[0])
    if program is None:
        raise HostError(f"{words[0]} is not installed", hint="amibuild doctor")
    return [str(program), *words[1:]]


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    env = {**os.environ, **(extra or {})}
    env["PATH"] = os.pathsep.join([env.get("PATH", os.defpath), *SYSTEM_PATHS])
    return env
