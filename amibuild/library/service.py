"""A service: one server program, described as data.

service.toml is read into ServiceFile; with its configuration files it is a Service, and
`compile.py` makes all that follows from it: user, directories, sandboxed unit, checks, facts.
Its tables (ports, secrets and so on) are in service_tables.py.
Everything of a service is called `svc-NAME`, so that it can't meet a name of the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from amibuild.library.artifact import Brings
from amibuild.library.service_tables import Data, Logs, OneLine, Players, Port, Protocol, Secret
from amibuild.library.step import StepFile
from amibuild.recipe.document import Misplaced
from amibuild.recipe.locate import KeyPath
from amibuild.recipe.values import Once, StepName, Switch, Whole

PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(?:service|socket|timer|path)")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9.-]*)\}")


class Runtime(StrEnum):
    """What makes the program's machine code, which decides how tight its sandbox can be."""

    NATIVE = "native"
    JIT = "jit"
    MONO = "mono"


class Restart(StrEnum):
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NO = "no"


class StopSignal(StrEnum):
    """Those that programs take for a wish to end."""

    TERM = "SIGTERM"
    INT = "SIGINT"
    QUIT = "SIGQUIT"
    HUP = "SIGHUP"
    USR1 = "SIGUSR1"
    USR2 = "SIGUSR2"


def _packages(values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if PACKAGE.fullmatch(value) is None:
            raise Misplaced(f"{value!r} is not the name of a Debian package", index)
    return values


def _units(values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if UNIT.fullmatch(value) is None:
            problem = f"{value!r} is not the name of a unit, such as luanti-server.service"
            raise Misplaced(problem, index)
    return values


class ServiceFile(Brings):
    """A whole service.toml. Its name is that of its folder.

    {state}, {config}, {port.NAME} and {secret.NAME} in `command`, `first_start`, `environment` and
    `players.command` stand for the service's directories, ports and files with secrets.
    """

    based_on: StepName | None = Field(
        default=None,
        description="Another service: its keys and files hold where this one gives none.",
    )

    purpose: OneLine = Field(min_length=1, description="What it is, in a sentence.")
    packages: Annotated[tuple[str, ...], Once, AfterValidator(_packages)] = Field(
        default=(), description="Debian packages that bring it."
    )
    replaces_units: Annotated[tuple[str, ...], Once, AfterValidator(_units)] = Field(
        default=(), description="Units of those packages that must never run, for ours does."
    )
    command: tuple[OneLine, ...] = Field(
        min_length=1, description="The program, by its whole path, and its arguments."
    )
    environment: Mapping[str, OneLine] = Field(
        default_factory=dict, description="Environment variables."
    )
    ports: tuple[Port, ...] = Field(
        min_length=1, description="What it listens on; the checks hold it to that."
    )
    memory_mib: Whole = Field(
        ge=16, le=1048576, description="The most memory it may take before it is restarted."
    )
    cpu_percent: Whole | None = Field(
        default=None, ge=1, le=38400, description="The most CPU time; 100 is one whole core."
    )
    tasks_max: Whole = Field(
        default=512, ge=1, le=65536, description="The most processes and threads."
    )
    runtime: Runtime = Field(
        default=Runtime.NATIVE,
        description="native, jit (makes machine code while it runs: LuaJIT, Java) or mono.",
    )
    runs_from_state: Switch = Field(
        default=False,
        description="Programs in its state directory may run, for those that must lie there; "
        "otherwise what it can write it can't run. /tmp and /var/tmp stay closed: Java's libraries "
        "need java.io.tmpdir in {state}.",
    )
    uses_role: Switch = Field(
        default=False,
        description="It may reach the metadata address, and so take the keys of the instance's "
        "role; secrets need no such thing.",
    )
    first_start: tuple[OneLine, ...] = Field(
        default=(),
        description="Run once before the first start, with a new password on its stdin, which is "
        "kept in {state}/first-password.",
    )
    restart: Restart = Field(
        default=Restart.ALWAYS, description="When to start it again: always, on-failure or no."
    )
    stop_signal: StopSignal = Field(
        default=StopSignal.TERM, description="The signal that ends it gracefully."
    )
    stop_input: OneLine | None = Field(
        default=None,
        min_length=1,
        description="A line on its stdin that ends it gracefully, for those that want one.",
    )
    stop_codes: tuple[Annotated[Whole, Field(ge=1, le=255)], ...] = Field(
        default=(), description="Exit codes of a graceful end, where it is not 0."
    )
    stop_timeout_s: Whole = Field(
        default=60, ge=1, le=3600, description="How long it may take to end before it is killed."
    )
    timeout_s: Whole = Field(
        default=600, ge=10, le=172800, description="How long installing it may take."
    )
    data: Data = Field(default_factory=Data, description="Its data volume and backups.")
    secrets: tuple[Secret, ...] = Field(default=(), description="Fetched at boot.")
    players: Players = Field(
        default_factory=Players, description="How to tell whether somebody plays."
    )
    logs: Logs = Field(default_factory=Logs, description="Its log files beside the journal.")

    @field_validator("command", "first_start")
    @classmethod
    def _whole_path(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value and not value[0].startswith(("/", "{install}/")):
            raise Misplaced(f"the program {value[0]!r} must be a whole path, such as /usr/bin/x", 0)
        return value

    @field_validator("environment")
    @classmethod
    def _variables(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if VARIABLE.fullmatch(name) is None:
                problem = f"{name!r} is not the name of an environment variable"
                raise Misplaced(problem, name, of_key=True)
        return value

    @field_validator("ports")
    @classmethod
    def _ports_differ(cls, value: tuple[Port, ...]) -> tuple[Port, ...]:
        for index, port in enumerate(value):
            for other in value[:index]:
                if port.name == other.name:
                    raise Misplaced(f"two ports are called {port.name}", index, "name")
                if (port.port, port.protocol) == (other.port, other.protocol):
                    twice = f"{port.port}/{port.protocol} stands here twice"
                    raise Misplaced(twice, index, "port")
        return value

    @field_validator("secrets")
    @classmethod
    def _secrets_differ(cls, value: tuple[Secret, ...]) -> tuple[Secret, ...]:
        names = [secret.name for secret in value]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise Misplaced(f"two secrets are called {name}", index, "name")
        return value

    @model_validator(mode="after")
    def _players_use_its_ports(self) -> ServiceFile:
        players = self.players
        http = players.http
        wanted: list[tuple[KeyPath, str, Protocol]] = [
            *((("tcp", index), name, Protocol.TCP) for index, name in enumerate(players.tcp)),
            *((("udp", index), name, Protocol.UDP) for index, name in enumerate(players.udp)),
            *([(("http", "port"), http.port, Protocol.TCP)] if http else []),
        ]
        known = {(port.name, port.protocol) for port in self.ports}
        for at, name, protocol in wanted:
            if (name, protocol) not in known:
                there = ", ".join(f"{port.name} ({port.protocol})" for port in self.ports)
                problem = f"there is no {protocol} port called {name}, only {there}"
                raise Misplaced(problem, "players", *at)
        return self


def service_user(name: str) -> str:
    """Its user and group, and what its directories are called after."""
    return f"svc-{name}"


@dataclass(frozen=True)
class Service:
    """A service with its own configuration files and its own checks, beside those of every one."""

    name: str
    file: ServiceFile
    configuration: tuple[StepFile, ...] = ()
    checks: tuple[StepFile, ...] = ()

    @property
    def user(self) -> str:
        return service_user(self.name)

    @property
    def unit(self) -> str:
        return f"{self.name}.service"

    @property
    def state_directory(self) -> str:
        return f"/var/lib/{self.user}"

    @property
    def config_directory(self) -> str:
        return f"/etc/{self.user}"

    @property
    def stdin(self) -> str:
        """The FIFO that is its stdin, where it has a `stop_input`."""
        return f"/run/{self.user}/stdin"

    @property
    def install_directory(self) -> str:
        """What its artifacts are unpacked into; root's, and read-only to the service."""
        return f"/opt/{self.user}"

    def placeholders(self) -> dict[str, str]:
        ports = {f"port.{port.name}": str(port.port) for port in self.file.ports}
        # Where systemd puts credentials. Source: systemd.exec(5), "Credentials".
        folder = f"/run/credentials/{self.unit}"
        secrets = {f"secret.{s.name}": f"{folder}/{s.name}" for s in self.file.secrets}
        return {
            "state": self.state_directory,
            "config": self.config_directory,
            **({"install": self.install_directory} if self.file.has_install else {}),
            **ports,
            **secrets,
        }

    def fill_in(self, text: str) -> str:
        """`text` with its placeholders replaced; braces around other words stay as they are."""
        known = self.placeholders()
        return PLACEHOLDER.sub(lambda found: known.get(found[1], found[0]), text)

    def unknown_placeholders(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Key path and name of each placeholder that stands for nothing."""
        known = self.placeholders()
        texts: list[tuple[tuple[str | int, ...], str]] = [
            *((("command", index), word) for index, word in enumerate(self.file.command)),
            *((("first_start", index), word) for index, word in enumerate(self.file.first_start)),
            *((("environment", name), text) for name, text in self.file.environment.items()),
            *(
                (("players", "command", index), word)
                for index, word in enumerate(self.file.players.command)
            ),
        ]
        for key, text in texts:
            yield from ((key, name) for name in PLACEHOLDER.findall(text) if name not in known)


def service_schema() -> dict[str, Any]:
    """JSON Schema of service.toml, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ServiceFile.model_json_schema(),
        "title": "amibuild service",
    }
