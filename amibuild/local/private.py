"""Runs a program in namespaces of its own, so that nothing of it outlives this process.

The program is below PID 1 of a PID namespace and in a mount namespace: when it ends, or this
process is killed, the kernel takes away its processes, its mounts and their loop devices. Without
root it is root of a user namespace instead, with the ids that /etc/subuid grants.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from amibuild import proc
from amibuild.errors import HostError


def wrap(argv: Sequence[str | Path]) -> list[str | Path]:
    """The command that runs `argv` as root of its own namespaces.

    The parent's death ends it: that is, of the thread that starts it, which must wait for it.
    """
    user: list[str | Path] = []
    if os.geteuid() != 0:
        user = ["--user", "--map-root-user", "--map-auto"]
    return [
        *bound(["unshare"]),
        *user,
        *("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
        "--",
        *argv,
    ]


def bound(argv: Sequence[str | Path]) -> list[str | Path]:
    """The command that runs `argv` so that it dies with the thread that starts it.

    Linux only: elsewhere a program outlives the kill of its parent.
    """
    if proc.which("setpriv") is None:
        return list(argv)
    return ["setpriv", "--pdeathsig", "KILL", "--", *argv]


def check() -> None:
    """Raises: HostError with what mends it, when this host does not allow such namespaces."""
    try:
        proc.run(wrap(["true"]), timeout_s=20)
    except HostError as error:
        if os.geteuid() == 0:
            raise HostError(f"this host allows root no namespaces of its own: {error}") from error
        raise HostError(
            f"this user may not be root of namespaces of their own: {error}", hint="amibuild doctor"
        ) from error


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> proc.Finished:
    """`proc.run` in namespaces. Raises: as that does."""
    return proc.run(wrap(argv), check=check, stdin=stdin, env=env, timeout_s=timeout_s)


def follow(
    argv: Sequence[str | Path],
    line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
) -> None:
    """Runs it to its end and hands over each line of its stderr as it comes; stdout is dropped.

    Raises: ProcessFailed with the last lines. Whatever is raised, the program has ended.
    """
    words = wrap(argv)
    reading, writing = os.pipe()
    said: list[str] = []
    with os.fdopen(reading, errors="replace") as lines:
        try:
            process = proc.start(words, stderr=writing, env=env)
        finally:
            os.close(writing)
        try:
            for text in lines:
                said.append(text)
                line(text.rstrip())
            exit_code = process.wait()
        finally:
            process.kill()
            process.wait()
    if exit_code != 0:
        raise proc.ProcessFailed([str(word) for word in argv], exit_code, "".join(said))
