"""What commands do on machines that do not exist: in code, or as a file that is read.

A script file is a JSON list; each entry is a Line, and the first that matches a command's text and
has turns left answers it. A command that none matches succeeds and says nothing.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from amibuild.errors import UsageError

# What a real machine's agent hands over at most (AgentCommand.output).
OUTPUT_LIMIT = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """What a command does: its exit code and output, after so many seconds.

    `seconds` may be infinite: it hangs until it is cancelled or its time is up. `agent_gone` ends
    it by losing the agent, which does not come back before the machine boots again.
    """

    exit_code: int = 0
    stdout: str | bytes = ""
    stderr: str | bytes = ""
    seconds: float = 0.0
    agent_gone: bool = False


CommandScript = Callable[[str], Outcome]


def always_succeeds(_: str) -> Outcome:
    return Outcome()


def _decoded(text: object) -> bytes:
    """Strictly: pydantic's own type drops what is no base64."""
    if not isinstance(text, str):
        raise ValueError("base64 is text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text!r} is no base64: {error}") from error


Bytes = Annotated[bytes, BeforeValidator(_decoded)]


class Line(BaseModel):
    """One entry of a script file: the outcome of commands whose text matches.

    `stdout` and `stderr` are text; `stdout_base64` and `stderr_base64` are bytes of any kind.
    `stdout_bytes` repeats stdout to that length, however long. `hang` never ends by itself,
    `agent_gone` ends with the agent lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = ""
    exit_code: int = Field(default=0, ge=0, le=255)
    stdout: str = ""
    stderr: str = ""
    stdout_base64: Bytes = b""
    stderr_base64: Bytes = b""
    stdout_bytes: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    hang: bool = False
    agent_gone: bool = False
    times: int | None = Field(default=None, ge=1)

    @field_validator("match")
    @classmethod
    def _is_pattern(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"{text!r} is no regular expression: {error}") from error
        return text

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        for name in ("stdout", "stderr"):
            if getattr(self, name) and getattr(self, f"{name}_base64"):
                raise ValueError(f"{name} and {name}_base64 are two answers")
        return self

    def outcome(self) -> Outcome:
        stdout: str | bytes = self.stdout_base64 or self.stdout
        if self.stdout_bytes:
            size = min(self.stdout_bytes, OUTPUT_LIMIT)
            pattern = self.stdout_base64 or self.stdout.encode() or b"x"
            stdout = (pattern * (size // len(pattern) + 1))[:size]
        return Outcome(
            self.exit_code,
            stdout,
            self.stderr_base64 or self.stderr,
            math.inf if self.hang else self.seconds,
            self.agent_gone,
        )


def _plain(message: str) -> str:
    """Without pydantic's words for what we said ourselves."""
    return message.removeprefix("Value error, ")


def read_script(path: Path) -> CommandScript:
    """A JSON list of lines; the first that matches (and has turns left) answers.

    Raises: UsageError.
    """
    try:
        lines = TypeAdapter(list[Line]).validate_json(path.read_bytes())
    except ValidationError as error:
        reasons = "; ".join(
            ": ".join([*filter(None, [".".join(map(str, e["loc"]))]), _plain(e["msg"])])
            for e in error.errors()
        )
        raise _no_script(path, reasons) from error
    except OSError as error:
        raise _no_script(path, error.strerror or str(error)) from error
    return Script(lines)


def _no_script(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"{path} is no script of command results: {reason}",
        hint='such as [{"match": "apt-get", "exit_code": 100, "stderr": "no network"}]',
    )


class Script:
    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = [(line, re.compile(line.match, re.MULTILINE)) for line in lines]
        self._left = [line.times for line in lines]
        self._lock = threading.Lock()

    def __call__(self, command: str) -> Outcome:
        # The agent's, before what was asked for.
        command = command.removeprefix("#!/bin/sh\n")
        with self._lock:
            for n, (line, pattern) in enumerate(self._lines):
                left = self._left[n]
                if pattern.search(command) and left != 0:
                    self._left[n] = None if left is None else left - 1
                    return line.outcome()
        return Outcome()
