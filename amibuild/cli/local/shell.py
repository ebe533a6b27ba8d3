"""`amibuild local shell`: root in a machine, by the best way in that there is.

An nspawn machine is entered through its namespaces, with a terminal of its own. A virtual one has
none to enter: where this host has the private half of the key that it was launched with, SSH gives
the terminal; everywhere else its agent runs what it is given, a line at a time.
"""

from __future__ import annotations

import base64
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amibuild.cli.lines import HOW, bash, line_by_line, show, whole_stdin
from amibuild.cli.local.logs import InstanceArgument
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.guests import Guest

USER = "admin"
NO_SSH = 255  # what ssh ends with when it could not log in
# Not in the image that may be made of this disk.
ENVIRONMENT = ("HOME=/root", "HISTFILE=/dev/null")


def shell(
    context: typer.Context,
    instance: InstanceArgument,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND", help="Runs this instead.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="For a virtual machine: the private key to log in with over SSH; else one in "
            "~/.ssh that it was launched with.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Open a root shell in a machine, or run what is on stdin; ends with the last exit code."""
    with session(context, as_json=False) as run:
        from amibuild import guests

        guest = guests.find_ready(instance, run.story.say)
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        if guest.driver == "nspawn" and os.geteuid() == 0:
            code = _enter(guest, command, terminal=terminal)
        elif command or not sys.stdin.isatty():
            given = b"" if sys.stdin.isatty() else whole_stdin(run.story.say)
            script = fed(command, given) if command else bash(given)
            code = show(guests.run(guest, script))
        else:
            private = key or known_key(guest, Path.home() / ".ssh")
            code = _log_in(guest, private) if private else NO_SSH
            if code == NO_SSH:
                why = "SSH gave none" if private else "no key of this machine is here (--key)"
                run.story.say(f"no terminal, since {why}: {HOW}")
                code = line_by_line(guest.id, lambda script: guests.run(guest, script))
    raise typer.Exit(code)


def fed(command: list[str], stdin: bytes) -> bytes:
    """A script that runs the command with that on its stdin: the agent takes a script only."""
    packed = base64.encodebytes(stdin).decode()
    return bash(f"base64 -d <<'END' | {shlex.join(command)}\n{packed}END\n".encode())


def known_key(guest: Guest, folder: Path) -> Path | None:
    """The file in `folder` with the private half of the key that it was launched with."""
    wanted = _material(guest.public_key or "")
    for public in sorted(folder.glob("*.pub")) if wanted else ():
        private = public.with_suffix("")
        if _material(public.read_text(errors="replace")) == wanted and private.exists():
            return private
    return None


def _material(public_key: str) -> tuple[str, ...]:
    """Type and key, without the comment behind them."""
    return tuple(public_key.split()[:2])


def _enter(guest: Guest, command: list[str] | None, *, terminal: bool) -> int:
    """As a transient unit of the machine: its own terminal, control group and environment."""
    from amibuild.errors import HostError
    from amibuild.local.machines.nspawn import enter_argv
    from amibuild.local.machines.processes import machine_init

    leader = machine_init(guest.pids)
    if leader is None:
        raise HostError(f"{guest.id} went away")
    unit = f"amibuild-shell-{os.getpid()}"
    how = "--pty" if terminal else "--pipe"
    words = ["systemd-run", "--quiet", how, "--wait", "--collect", "--service-type=exec"]
    words += [f"--unit={unit}", "--working-directory=/root"]
    words += [f"--setenv={variable}" for variable in ENVIRONMENT]
    if terminal:
        words += [f"--setenv=TERM={os.environ.get('TERM', 'linux')}"]
    inside = command or ["/bin/bash", "-l" if terminal else "-s"]
    # systemd would expand variables in them; systemd-run has an option for that since version 254.
    words += ["--", *(word.replace("$", "$$") for word in inside)]
    return _foreground(
        enter_argv(leader, tuple(words)),
        undo=enter_argv(leader, ("systemctl", "stop", unit)),
    )


def _log_in(guest: Guest, key: Path) -> int:
    """The machine is new and its address is used again: there is no host key to know it by."""
    words = ["ssh", "-t", "-i", str(key), "-p", str(guest.ssh_port), "-o", "LogLevel=ERROR"]
    words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    # Nobody has set a password.
    words += ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    return _foreground([*words, f"{USER}@{guest.address}", "sudo", "-i"])


def _foreground(argv: list[str], *, undo: list[str] | None = None) -> int:
    """Runs it on our own terminal or pipes; when we are interrupted it ends, and `undo` is run."""
    from amibuild import proc

    process = proc.start(argv, stdin=0, stdout=1, stderr=2, new_session=False)
    proc.never_stops(process)
    try:
        return process.wait()
    except BaseException:
        # It may be one for a terminal: those put it back as it was on SIGTERM.
        process.terminate()
        process.wait()
        if undo is not None:
            proc.run(undo, check=False)
        raise
