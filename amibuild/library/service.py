"""A service: one server program, described as data.

service.toml is read into ServiceFile; with its configuration files it is a Service, and
`compile.py` makes all that follows from it: user, directories, sandboxed unit, checks, facts.
Everything of a service is called `svc-NAME`, so that it can't meet a name of the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from amibuild.library.step import StepFile
from amibuild.recipe.model import Once, Section, StepName, Switch, Whole

PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(?:service|socket|timer|path)")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9.-]*)\}")


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


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


class Port(Section):
    """A port that the service listens on."""

    name: StepName = Field(description="What it is for; {port.NAME} stands for its number.")
    port: Whole = Field(ge=1, le=65535, description="Its number.")
    protocol: Protocol = Field(description="tcp or udp.")


def _packages(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if PACKAGE.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not the name of a Debian package")
    return values


def _units(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if UNIT.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not the name of a unit, such as luanti-server.service")
    return values


def _one_line(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise ValueError("must be one line")
    return value


OneLine = Annotated[str, AfterValidator(_one_line)]


class ServiceFile(Section):
    """A whole service.toml. Its name is that of its folder.

    {state}, {config} and {port.NAME} in `command` and `environment` stand for the service's
    directories and ports.
    """

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
    writable_code: Switch = Field(
        default=False,
        description="It makes machine code while it runs (LuaJIT, Mono, Java): let it.",
    )
    restart: Restart = Field(
        default=Restart.ALWAYS, description="When to start it again: always, on-failure or no."
    )
    stop_signal: StopSignal = Field(
        default=StopSignal.TERM, description="The signal that ends it gracefully."
    )
    stop_timeout_s: Whole = Field(
        default=60, ge=1, le=3600, description="How long it may take to end before it is killed."
    )
    timeout_s: Whole = Field(
        default=600, ge=10, le=172800, description="How long installing it may take."
    )

    @field_validator("command")
    @classmethod
    def _whole_path(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0].startswith("/"):
            raise ValueError(f"the program {value[0]!r} must be a whole path, such as /usr/bin/x")
        return value

    @field_validator("environment")
    @classmethod
    def _variables(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if VARIABLE.fullmatch(name) is None:
                raise ValueError(f"{name!r} is not the name of an environment variable")
        return value

    @field_validator("ports")
    @classmethod
    def _ports_differ(cls, value: tuple[Port, ...]) -> tuple[Port, ...]:
        for index, port in enumerate(value):
            for other in value[:index]:
                if port.name == other.name:
                    raise ValueError(f"two ports are called {port.name}")
                if (port.port, port.protocol) == (other.port, other.protocol):
                    raise ValueError(f"{port.port}/{port.protocol} stands here twice")
        return value


@dataclass(frozen=True)
class Service:
    """A service with its own configuration files and its own checks, beside those of every one."""

    name: str
    file: ServiceFile
    configuration: tuple[StepFile, ...] = ()
    checks: tuple[StepFile, ...] = ()

    @property
    def user(self) -> str:
        return f"svc-{self.name}"

    @property
    def unit(self) -> str:
        return f"{self.name}.service"

    @property
    def state_directory(self) -> str:
        return f"/var/lib/{self.user}"

    @property
    def config_directory(self) -> str:
        return f"/etc/{self.user}"

    def placeholders(self) -> dict[str, str]:
        ports = {f"port.{port.name}": str(port.port) for port in self.file.ports}
        return {"state": self.state_directory, "config": self.config_directory, **ports}

    def fill_in(self, text: str) -> str:
        """`text` with its placeholders replaced; braces around other words stay as they are."""
        known = self.placeholders()
        return PLACEHOLDER.sub(lambda found: known.get(found[1], found[0]), text)

    def unknown_placeholders(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Key path and name of each placeholder that stands for nothing."""
        known = self.placeholders()
        texts: list[tuple[tuple[str | int, ...], str]] = [
            *((("command", index), word) for index, word in enumerate(self.file.command)),
            *((("environment", name), text) for name, text in self.file.environment.items()),
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
