"""What the runbook says to paste does what the bake did, whatever the files contain."""

from __future__ import annotations

import os
import pty
import select
import sys
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.library.step import StepFile
from amibuild.outputs import paste
from amibuild.outputs.manifest import Step
from amibuild.outputs.runbook import extract_commands, merge, render
from tests.unit.samples import build_step, manifest, step

TRICKY = {
    "quotes": b"it's \"quoted\" and 'quoted'\n",
    "expansion": b"$HOME ${x:-y} $(reboot) `reboot` \\n \\\\ !! !$ !reboot ~\n",
    "delimiters": b"EOF\nEOF_1\n EOF\nEOF \nEOF_2x\n",
    "no newline at the end": b"last",
    "blank lines around": b"\n\n  x\n\n\n",
    "empty": b"",
    "one newline": b"\n",
    "tabs": b"a:\n\tb\tc\n",
    "binary": bytes(range(256)),
    "carriage returns": b"a\r\nb\r\n",
    "control characters": b"bell \x07 escape \x1b[31m end-of-file \x04 interrupt \x03\n",
    "unicode": "grüße 😀 \u2028 \u0085 end\n".encode(),
    "long line": b"x" * 9000 + b"\n",
    "fences": b"```\n````bash step=x\n```\n",
    "markers": b"<!-- amibuild:begin -->\n<!-- amibuild:end -->\n",
    "looks like the end": b")\n) || true\nEOF\nbash run.sh\n",
}
ENVIRONMENT = {
    "QUOTED": "it's \"a\" 'b'",
    "EXPANDED": "$HOME `id` $(id) \\ !! %s",
    "LINES": "a\nb\n",
    "CONTROL": "tab\tcr\rbell\x07" + "7 digits after\x011",
    "UNICODE": "grüße 😀",
    "EMPTY": "",
}
# The script leaves its environment where the test can read it: NUL between the values.
SCRIPT = (
    "set -euo pipefail\nenv -0 >env.out\nstat -c '%a %n' -- * files/* >modes.out\ncat >stdin.out\n"
)


def tricky_step() -> Step:
    files = tuple(
        StepFile(f"files/{name}", content, 0o755 if name == "binary" else 0o640)
        for name, content in TRICKY.items()
    )
    return step(build_step("tricky", SCRIPT, files, ENVIRONMENT))


def commands_in(folder: Path, *steps: Step) -> str:
    """What stands in RUNBOOK.md, with another root folder than /run/amibuild."""
    return extract_commands(merge(None, render([manifest(steps=steps)]))).replace(
        paste.ROOT, str(folder)
    )


def assert_done(folder: Path) -> None:
    ran = folder / "tricky"
    for name, content in TRICKY.items():
        assert (ran / "files" / name).read_bytes() == content, name
    seen = dict(pair.split(b"=", 1) for pair in (ran / "env.out").read_bytes().split(b"\0") if pair)
    for key, value in ENVIRONMENT.items():
        assert seen[key.encode()] == value.encode(), key
    modes = (ran / "modes.out").read_text().splitlines()
    assert "755 files/binary" in modes
    assert "640 files/quotes" in modes
    assert "644 run.sh" in modes
    assert (ran / "stdin.out").read_bytes() == b""


def test_a_script_of_the_commands_gives_the_same_files_and_environment(tmp_path: Path) -> None:
    proc.run(["bash"], stdin=commands_in(tmp_path, tricky_step()).encode())
    assert_done(tmp_path)


def test_pasting_the_commands_into_a_terminal_gives_the_same(tmp_path: Path) -> None:
    commands = commands_in(tmp_path, tricky_step()).removeprefix("set -e\n")
    output = paste_into_bash(commands)
    assert (tmp_path / "tricky" / "stdin.out").exists(), output
    assert_done(tmp_path)


def paste_into_bash(commands: str) -> str:
    """What an interactive bash on a terminal shows when this is pasted as terminals do."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", HISTFILE="", PS1="$ ", INPUTRC=os.devnull)
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    shown = read_until(terminal, b"$ ")
    left = f"\x1b[200~{commands}\x1b[201~\nexit\n".encode()
    while left:
        readable, writable, _ = select.select([terminal], [terminal], [], 30)
        assert readable or writable, "the shell hangs"
        if readable:
            shown += os.read(terminal, 65536)
        if writable:
            left = left[os.write(terminal, left[:512]) :]
    shown += read_until(terminal, None)
    os.waitpid(pid, 0)
    os.close(terminal)
    return shown.decode(errors="replace")


def read_until(terminal: int, end: bytes | None) -> bytes:
    seen = b""
    while end is None or end not in seen:
        assert select.select([terminal], [], [], 30)[0], seen
        try:
            more = os.read(terminal, 65536)
        except OSError:  # EIO: the shell is gone
            break
        if not more:
            break
        seen += more
    return seen


@pytest.mark.parametrize("start", [["bash"], ["bash", "-e"]])
def test_a_failed_command_ends_the_step_and_all_after_it(tmp_path: Path, start: list[str]) -> None:
    failing = step(build_step("first", "false\nexit 7\n"))
    later = step(build_step("second", "true\n"))
    done = proc.run(start, stdin=commands_in(tmp_path, failing, later).encode(), check=False)
    assert done.exit_code == 7
    assert done.stderr.decode() == "FAILED: first: stop here\n"
    assert not (tmp_path / "second").exists()


def test_a_step_that_failed_leaves_the_persons_shell_open(tmp_path: Path) -> None:
    commands = commands_in(tmp_path, step(build_step("first", "exit 7\n")))
    pasted = commands.removeprefix("set -e\n") + "\necho still here\n"
    done = proc.run(["bash"], stdin=pasted.encode())
    assert done.text == "still here\n"
    assert b"FAILED: first" in done.stderr


def test_a_file_too_large_for_the_manifest_is_checked_before_the_script_runs(
    tmp_path: Path,
) -> None:
    big = StepFile("files/big", b"x" * 70_000)
    commands = commands_in(tmp_path, step(build_step("first", "touch ran\n", (big,))))
    assert proc.run(["bash"], stdin=commands.encode(), check=False).exit_code != 0
    assert not (tmp_path / "first" / "ran").exists()
    (tmp_path / "first" / "files").mkdir(parents=True)
    (tmp_path / "first" / "files" / "big").write_bytes(big.content)
    proc.run(["bash"], stdin=commands.encode())
    assert (tmp_path / "first" / "ran").exists()


def test_the_commands_are_clean_to_shellcheck(tmp_path: Path) -> None:
    path = tmp_path / "paste.sh"
    path.write_text(commands_in(Path(paste.ROOT), tricky_step()))
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = proc.run([shellcheck, "--shell=bash", "--exclude=SC2016", path], check=False)
    assert done.exit_code == 0, done.text
