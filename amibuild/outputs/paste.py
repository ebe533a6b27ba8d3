"""The commands in the runbook: a step as shell text that a person pastes into a root shell.

Each step is one block. It writes every file by a quoted heredoc, so that nothing in it is
expanded, and runs `bash run.sh </dev/null` in the step's folder, as the bake does. The block is
a subshell with `set -e`: a failure ends the block and not the person's shell.

A paste into an interactive bash is safe: it looks up no `!` of a heredoc or of single quotes in
its history (bash 5.2, with bracketed paste and without; tests/unit/test_runbook_replay.py).
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import textwrap
from collections.abc import Iterable
from pathlib import PurePosixPath

from amibuild.outputs.manifest import Artifact, File, Step

ROOT = "/run/amibuild"
SECRETS = "/run/amibuild-secrets"
# As library/every_service/fetch.py reads them.
ARTIFACTS = "artifacts/artifacts.json"
SOURCES = "artifacts/sources.json"
BLOBS = "artifacts/blobs"

_FENCE = re.compile(r"(?P<ticks>`{3,})bash step=(?P<step>\S+)")
# A terminal takes no more than 4,095 bytes in a line (N_TTY's buffer), and acts on control
# characters, so such a file travels as base64. Markers must not look like the runbook's own.
_LONGEST_LINE = 4000
_UNPASTABLE = re.compile(r"[^\n\t\x20-\x7e\u00a0-\U0010ffff]|<!-- amibuild:")
_BASE64_WIDTH = 76


def fenced(step: Step) -> list[str]:
    """The step's block between fences that its content can't close."""
    commands = block(step)
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", commands)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}bash step={step.name}", *commands.rstrip("\n").split("\n"), fence]


def blocks(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Step name and commands of each block that `fenced` wrote into these lines."""
    found: list[tuple[str, str]] = []
    ticks: str | None = None
    name, body = "", list[str]()
    for line in lines:
        if ticks is None:
            if match := _FENCE.fullmatch(line):
                ticks, name, body = match["ticks"], match["step"], []
        elif line == ticks:
            found.append((name, "\n".join(body) + "\n"))
            ticks = None
        else:
            body.append(line)
    return found


def block(step: Step) -> str:
    """The step's commands.

    The failure is told by a trap: `( … ) || echo` would switch `set -e` off inside the brackets.
    """
    folder = f"{ROOT}/{step.name}"
    told = f'[ $? = 0 ] || echo "FAILED: {step.name}: stop here" >&2'
    script = _written("run.sh", step.script.encode(), 0o644)
    files = _files(step.files)
    files += _artifacts(step)
    exports = [f"export {key}={_quote(value)}" for key, value in step.environment.items()]
    lines = [
        "(",
        "set -e",
        f"trap {shlex.quote(told)} EXIT",
        "umask 022",
        f"mkdir -p {shlex.quote(folder)}",
        f"cd {shlex.quote(folder)}",
        *script,
        *files,
        *exports,
        *_secrets(step),
        "bash run.sh </dev/null",
        ")",
    ]
    return "\n".join(lines) + "\n"


def _secrets(step: Step) -> list[str]:
    """Their values are in no file of ours: the person puts them there before."""
    if not step.secrets:
        return []
    return [
        f"export AMIBUILD_SECRETS={SECRETS}",
        *(f'test -s "$AMIBUILD_SECRETS/{name}" # write it there first' for name in step.secrets),
    ]


def _artifacts(step: Step) -> list[str]:
    """What says where they come from; the others are to be put beside it by hand.

    An address that had a query is one of those: without it, it may lead nowhere.
    """
    if not any(file.path == ARTIFACTS for file in step.files):
        return []
    public = [a for a in step.artifacts if a.url.startswith("https://") and not a.has_query]
    sources = [
        {"name": a.name, "sha256": a.sha256, "urls": [a.url] if a in public else []}
        for a in step.artifacts
    ]
    text = json.dumps(sources, indent=1) + "\n"
    by_hand = [a for a in step.artifacts if a not in public]
    return [
        *_written(SOURCES, text.encode(), 0o644),
        *(f"test -f {BLOBS}/{a.sha256} # a copy of {_address(a)}" for a in by_hand),
    ]


def _address(artifact: Artifact) -> str:
    query = ", with its query from the recipe" if artifact.has_query else ""
    return shlex.quote(artifact.url) + query


def _files(files: Iterable[File]) -> list[str]:
    """Links after what they are of, and folders last: one that gives its group away would give it
    to files too."""
    ordered = sorted(files, key=lambda file: (file.folder, bool(file.link or file.same_as)))
    return [line for file in ordered for line in _file(file)]


def _file(file: File) -> list[str]:
    target = _quote(file.path)
    if file.link:
        return [*_parent(file.path), f"ln -sfn -- {_quote(file.link)} {target}"]
    if file.same_as:
        return [*_parent(file.path), f"ln -f -- {_quote(file.same_as)} {target}"]
    owner = [f"chown {shlex.quote(file.owner)} -- {target}"] if file.owner else []
    mode = _mode(file.path, file.mode)
    if file.folder:
        return [f"mkdir -p -- {target}", *owner, mode]
    content = file.read()
    if content is None:
        return [_checked(file), *owner, mode]
    written = _written(file.path, content, file.mode)
    return [*written[:-1], *owner, mode]


def _checked(file: File) -> str:
    if file.path.isprintable() and "\\" not in file.path:
        line = f"{file.sha256}  {file.path}"
        return f"echo {shlex.quote(line)} | sha256sum --check --quiet -"
    # A list for sha256sum would spell it in another way.
    return f'[ "$(sha256sum <{_quote(file.path)} | cut -c1-64)" = {file.sha256} ]'


def _parent(path: str) -> list[str]:
    folder = str(PurePosixPath(path).parent)
    return [f"mkdir -p -- {_quote(folder)}"] if folder != "." else []


def _written(path: str, content: bytes, mode: int) -> list[str]:
    before = _parent(path)
    target = _quote(path)
    text = _pastable(content)
    if text is None:
        lines = textwrap.wrap(base64.b64encode(content).decode(), _BASE64_WIDTH)
        body = [f"base64 -d >{target} <<'EOF'", *lines, "EOF"]
    else:
        lines = text.split("\n")[:-1]
        end = _delimiter(lines)
        body = [f"cat >{target} <<'{end}'", *lines, end]
    return [*before, *body, _mode(path, mode)]


def _mode(path: str, mode: int) -> str:
    return f"chmod {mode:04o} -- {_quote(path)}"


def _pastable(content: bytes) -> str | None:
    """The text, when a heredoc through a terminal gives exactly these bytes; else None."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    ends_well = text == "" or text.endswith("\n")
    if not ends_well or _UNPASTABLE.search(text):
        return None
    longest = max((len(line) for line in content.split(b"\n")), default=0)
    return text if longest <= _LONGEST_LINE else None


def _delimiter(lines: list[str]) -> str:
    """A word that none of the lines is: EOF, else EOF_1, EOF_2, …"""
    taken = set(lines)
    number, word = 0, "EOF"
    while word in taken:
        number += 1
        word = f"EOF_{number}"
    return word


def _quote(value: str) -> str:
    """Single quotes, or $'…' where a control character would not survive the terminal."""
    if not _UNPASTABLE.search(value) and "\t" not in value and "\n" not in value:
        return shlex.quote(value)
    escaped = "".join(
        char if "\x20" <= char <= "\x7e" and char not in "\\'<" else _escape(char) for char in value
    )
    return f"$'{escaped}'"


def _escape(char: str) -> str:
    # Three octal digits a byte: \x and \u would take in digits that follow.
    return "".join(f"\\{byte:03o}" for byte in char.encode())
