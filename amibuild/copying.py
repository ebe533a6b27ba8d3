"""Files to the machine of a bake and from it, named as scp names them: BAKE_ID:PATH."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from amibuild.bake_machine import HOME, BakeMachine
from amibuild.errors import UsageError
from amibuild.wait import Observer, silent

if TYPE_CHECKING:
    from amibuild.communicator.ssh import SshCommunicator

# What has a slash before its colon is a path here: ./a:b.
_THERE = re.compile(r"([^/:]+):(.*)", re.DOTALL)


@dataclass(frozen=True)
class Copy:
    """One of `source` and `to` is a path on the machine of `bake_id`, where a relative one is of
    root's home; the other is a path here."""

    bake_id: str
    source: str
    to: str
    to_machine: bool


def read_copy(source: str, to: str) -> Copy:
    """What a command line asks for. Raises: UsageError."""
    from_there, to_there = _THERE.fullmatch(source), _THERE.fullmatch(to)
    if from_there and not to_there:
        return Copy(from_there[1], _absolute(from_there[2]), to, to_machine=False)
    if to_there and not from_there:
        return Copy(to_there[1], source, _absolute(to_there[2]), to_machine=True)
    which = "both are" if from_there else "neither is"
    raise UsageError(
        f"one of SOURCE and TARGET is on the machine of a bake, and {which}",
        hint="as in `amibuild copy BAKE_ID:/var/log logs` and `amibuild copy server.cfg "
        "BAKE_ID:/etc/game/`; a file here with a colon in its name begins with ./",
    )


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"{HOME}/{path}"


def copy(machine: BakeMachine, wanted: Copy, observer: Observer = silent) -> str:
    """Copies a file, or a folder with all that is in it; the path that it has now.

    Into `to` where that is a folder or ends with /, else as `to`. What is there and has no
    counterpart stays. Raises: UsageError, CommandFailed, WaitTimeout, OSError.
    """
    # paramiko takes half a second to import.
    from amibuild.communicator.ssh import SshCommunicator

    if not isinstance(machine.communicator, SshCommunicator):
        raise UsageError(
            f"{machine.id} is reached over Run Command, which carries no files",
            hint="`amibuild run BAKE_ID -- cat FILE` shows one of up to 1 MB; a recipe with "
            'builder.communicator = "ssh" has a way for more',
        )
    go = _send if wanted.to_machine else _fetch
    return go(machine.communicator, wanted.source, wanted.to, observer)


def _send(ssh: SshCommunicator, source: str, to: str, observer: Observer) -> str:
    from amibuild.communicator.trees import is_folder, send_tree

    path, folder = Path(source), str(PurePosixPath(to).parent)
    if to.endswith("/") or is_folder(ssh, to):
        # Of "." and "..", too.
        name = path.resolve().name if path.name in ("", "..") else path.name
        to = f"{to.rstrip('/')}/{name}"
    elif not is_folder(ssh, folder):
        raise UsageError(
            f"there is no folder {folder} on the machine",
            hint=f"{to}/, with a slash at its end, is made",
        )
    send_tree(ssh, path, to, observer)
    return to


def _fetch(ssh: SshCommunicator, source: str, to: str, observer: Observer) -> str:
    from amibuild.communicator.trees import fetch_tree

    while source.endswith(("/", "/.")):
        source = source.removesuffix("/.").rstrip("/")
    name, path = PurePosixPath(source).name, Path(to)
    if name in ("", ".."):
        raise UsageError(f"{source} has no name of its own that it could have here")
    if to.endswith("/") or path.is_dir():
        fetch_tree(ssh, source, path, observer)
        return str(path / name)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.absolute().parent}")
    # Beside it, and there at once: what is there already stays until all has come.
    made = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}-"))
    try:
        fetch_tree(ssh, source, made, observer)
        if path.exists() and (made / name).is_dir() and not (made / name).is_symlink():
            raise UsageError(f"{source} is a folder, and {path} is a file")
        (made / name).replace(path)
    finally:
        shutil.rmtree(made)
    return to
