"""How a script becomes a command inside a machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.local.machines.command import CANCELLER, LAUNCHER, interpreter, launch_argv


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (b"#!/bin/bash\nexit 0", ("/bin/bash",)),
        (b"#! /bin/bash -e\n", ("/bin/bash", "-e")),
        (b"#!/usr/bin/env python3\n", ("/usr/bin/env", "python3")),
        # As the kernel has it: all that follows the program is one argument.
        (b"#!/usr/bin/env -S bash -eu\n", ("/usr/bin/env", "-S bash -eu")),
        (b"#!/bin/sh\r\nexit 0", ("/bin/sh",)),
        (b"echo no first line\n", ("/bin/sh",)),
        (b"#!\n", ("/bin/sh",)),
        (b"", ("/bin/sh",)),
    ],
)
def test_the_first_line_says_the_interpreter(script: bytes, words: tuple[str, ...]) -> None:
    assert interpreter(script) == words


def test_the_script_is_no_argument() -> None:
    secret = b"#!/bin/bash\necho hunter2"
    assert not any("hunter2" in word for word in launch_argv("one", secret))


@pytest.mark.parametrize("text", [LAUNCHER, CANCELLER])
def test_the_shell_text_has_nothing_that_shellcheck_minds(text: str) -> None:
    script = f"#!/bin/sh\n{text}".encode()
    # SC2016: the inner script's variables are meant for the inner shell.
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = proc.run([shellcheck, "--exclude=SC2016", "-"], stdin=script, check=False)
    assert done.exit_code == 0, done.text
