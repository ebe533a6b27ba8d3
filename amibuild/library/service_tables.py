"""The tables of a service.toml: ports, data volume, secrets, players, logs.

Split from service.py, which holds the flat keys and what they mean together.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from amibuild.recipe.document import Misplaced
from amibuild.recipe.section import Section
from amibuild.recipe.values import Once, StepName, Switch, Whole

# A parameter's path or a secret's name or ARN. Source: PutParameter and CreateSecret in the API
# references of Systems Manager and Secrets Manager.
SECRET_ID = re.compile(r"[A-Za-z0-9/_+=.@:-]{1,512}")
TAG_VALUE = re.compile(r"[A-Za-z0-9_.:/=+@-]{1,64}")


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class SecretStore(StrEnum):
    SSM = "ssm"
    SECRETS_MANAGER = "secretsmanager"


def one_line(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise ValueError("must be one line")
    return value


OneLine = Annotated[str, AfterValidator(one_line)]


def _below(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{value!r} is not a path below the state directory, such as world")
    return one_line(value)


def _log_file(value: str) -> str:
    if not value.startswith("{state}/") or ".." in PurePosixPath(value).parts:
        raise ValueError(f"{value!r} must be below {{state}}, such as {{state}}/logs/*.log")
    # logrotate would read these as its own syntax.
    if any(c.isspace() or c in "\"'{}" for c in value.removeprefix("{state}")):
        raise ValueError(f"{value!r} has white space, quotes or braces, which logrotate can't take")
    return value


def _secret_id(value: str) -> str:
    if SECRET_ID.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not the name of a parameter or secret, such as /game/token")
    return value


def _tag_value(value: str) -> str:
    if TAG_VALUE.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a value for a tag, such as daily")
    return value


def _page(value: str) -> str:
    if not value.startswith("/") or any(c.isspace() for c in value):
        raise ValueError(f"{value!r} is not the path of a page, such as /status.json")
    return value


class Port(Section):
    """A port that the service listens on."""

    name: StepName = Field(description="What it is for; {port.NAME} stands for its number.")
    port: Whole = Field(ge=1, le=65535, description="Its number.")
    protocol: Protocol = Field(description="tcp or udp.")
    public: Switch = Field(default=True, description="Players reach it: the firewall lets it in.")


class Data(Section):
    """What of the state directory outlives the machine."""

    volume: Switch = Field(
        default=False, description="A volume of its own is mounted there, where one is named."
    )
    size_gib: Whole = Field(default=20, ge=1, le=16384, description="Its size, for Terraform.")
    backup: Annotated[tuple[Annotated[str, AfterValidator(_below)], ...], Once] = Field(
        default=(), description="Paths below the state directory that are worth a backup."
    )
    backup_tag: Annotated[str, AfterValidator(_tag_value)] = Field(
        default="daily",
        description="The volume's tag amibuild:backup, by which snapshots are made.",
    )

    @model_validator(mode="after")
    def _backup_has_a_volume(self) -> Data:
        if self.backup and not self.volume:
            problem = "needs volume = true: what is backed up is the volume"
            raise Misplaced(problem, "backup")
        return self


class Secret(Section):
    """A secret, fetched at boot with the instance's role. Its value is never in the image."""

    name: StepName = Field(description="{secret.NAME} stands for the file that holds it.")
    id: Annotated[str, AfterValidator(_secret_id)] | None = Field(
        default=None, description="Its name in the store; /IMAGE/SERVICE/NAME when there is none."
    )
    store: SecretStore = Field(
        default=SecretStore.SSM,
        alias="from",
        description="ssm (a parameter) or secretsmanager (a secret).",
    )


class HttpProbe(Section):
    """The service's own page that tells how many play, as JSON."""

    port: StepName = Field(description="The name of its TCP port.")
    path: Annotated[str, AfterValidator(_page)] = Field(
        default="/", description="What is asked for."
    )
    key: str = Field(min_length=1, description="The key that holds the number, dotted if deeper.")


class Players(Section):
    """How to tell whether somebody plays: one of these; without any, traffic on its ports."""

    tcp: tuple[StepName, ...] = Field(
        default=(), description="Ports whose established connections are players."
    )
    udp: tuple[StepName, ...] = Field(
        default=(), description="Ports whose answered flows are players."
    )
    http: HttpProbe | None = Field(default=None, description="A page that tells their number.")
    command: tuple[OneLine, ...] = Field(
        default=(), description="A program, by its whole path, that prints their number."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Players:
        ways = [bool(self.tcp or self.udp), self.http is not None, bool(self.command)]
        if sum(ways) > 1:
            raise ValueError("give one way to count: ports (tcp, udp), http or command")
        if self.command and not self.command[0].startswith("/"):
            raise Misplaced(f"the program {self.command[0]!r} must be a whole path", "command", 0)
        return self


class Logs(Section):
    """Log files beside the journal, which is always shipped."""

    files: Annotated[tuple[Annotated[str, AfterValidator(_log_file)], ...], Once] = Field(
        default=(), description="Patterns below {state}: rotated, and shipped to CloudWatch."
    )
