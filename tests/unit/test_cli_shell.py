"""Which key opens a virtual machine: only the one that it was launched with."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from amibuild import proc
from amibuild.cli.lines import bash
from amibuild.cli.local.shell import fed, known_key
from amibuild.control import Announced
from amibuild.guests import Guest

OURS = "ssh-ed25519 AAAAC3Nzours"
GUEST = Guest(
    id="i-1",
    state="running",
    driver="qemu",
    ready=True,
    address="10.213.0.2",
    ssh_port=22,
    public_key=f"{OURS} of the launch",
    folder=Path("/nowhere"),
    pids=(),
    endpoint=Announced(1, None, 1, "qemu", {}, "", ""),
)


def test_the_key_of_the_launch_is_found_whatever_its_comment(tmp_path: Path) -> None:
    (tmp_path / "id_other.pub").write_text("ssh-ed25519 AAAAC3Nzother me@here\n")
    (tmp_path / "id_other").touch()
    assert known_key(GUEST, tmp_path) is None
    (tmp_path / "id_ours.pub").write_text(f"{OURS} me@here\n")
    assert known_key(GUEST, tmp_path) is None  # its private half is elsewhere
    (tmp_path / "id_ours").touch()
    assert known_key(GUEST, tmp_path) == tmp_path / "id_ours"


def test_a_machine_without_a_key_has_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pub").write_text("")
    (tmp_path / "empty").touch()
    assert known_key(replace(GUEST, public_key=None), tmp_path) is None


def test_a_script_that_names_its_interpreter_keeps_it() -> None:
    assert bash(b"echo x") == b"#!/bin/bash\necho x"
    assert bash(b"#!/usr/bin/python3\n") == b"#!/usr/bin/python3\n"


def test_a_command_gets_what_is_on_stdin() -> None:
    """As `tar c . | amibuild local shell INSTANCE -- tar x`, byte by byte."""
    given = bytes(range(256)) * 64
    done = proc.run(["bash"], stdin=fed(["sha256sum"], given))
    assert done.text.split()[0] == hashlib.sha256(given).hexdigest()
    assert proc.run(["bash"], stdin=fed(["sh", "-c", "exit 7"], b""), check=False).exit_code == 7
