"""What the manifest says about one service: what it asks for, and what was seen of it.

Most of it is what its service.toml compiles to (`service_facts` in library/compile.py); exposure,
memory and answering ports were measured on the fresh machine, the size where it was installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

Seen = Literal["answers", "connects", "listens"]

# The names that the checks measure under: see library/every_service/test_every_service.py.
ANSWERS = "answers."
PORT = "port."
ATTACK = "attack."


class _Record(BaseModel):
    # Not "forbid": a service's facts are more than this, and those of older manifests others.
    model_config = ConfigDict(frozen=True, extra="ignore")


class ServicePort(_Record):
    name: str = Field(description="What it is for")
    port: int
    protocol: str = Field(description="tcp or udp")
    public: bool = Field(default=True, description="The firewall lets it in")
    seen: Seen | None = Field(
        default=None,
        description="On the fresh machine: the server answers a client, takes a connection, or "
        "has the port open; null when nothing was seen",
    )

    def __str__(self) -> str:
        return f"{self.name} {self.port}/{self.protocol}"


class ServiceVolume(_Record):
    size_gib: int = Field(description="Size that it asks for, GiB")


class ServiceBackup(_Record):
    paths: tuple[str, ...] = Field(description="Below the state directory, which is the volume")
    tag: str = Field(description="Value of the volume's tag amibuild:backup")


class ServiceSecret(_Record):
    """Where a secret is. What it is was never here."""

    name: str
    id: str = Field(description="Name in the store")
    store: str = Field(
        validation_alias=AliasChoices("store", "from"), description="ssm or secretsmanager"
    )


class ServiceRecord(_Record):
    """One service of the image."""

    user: str = Field(description="Its user and group")
    unit: str = Field(default="", description="Its systemd unit")
    state_directory: str = Field(default="", description="What it writes; the volume's mount point")
    ports: tuple[ServicePort, ...] = ()
    exposure: float | None = Field(
        default=None, description="systemd-analyze security on the fresh machine: 0 to 10"
    )
    memory_mib: int | None = Field(default=None, description="The most that it may take, MiB")
    memory_used_mib: float | None = Field(
        default=None, description="What it took on the fresh machine, nobody connected, MiB"
    )
    installed_bytes: int | None = Field(
        default=None, description="What the disk holds more since it was installed"
    )
    volume: ServiceVolume | None = Field(default=None, description="Its data volume")
    backup: ServiceBackup | None = Field(default=None, description="What is worth a backup")
    secrets: tuple[ServiceSecret, ...] = Field(default=(), description="Fetched at boot")
    attacks: dict[str, str] = Field(
        default={},
        description="What was tried from inside of its sandbox -> what refused it, and how",
    )
    players: dict[str, Any] = Field(default={}, description="How they are counted")
    log_group: str = Field(default="", description="Where its journal is shipped to")


def service_record(
    facts: Mapping[str, Any], measures: Mapping[str, Any], installed_bytes: int | None
) -> ServiceRecord:
    """`facts` are its step's; `measures` what its checks recorded, by name."""
    ports = [
        {**port, "seen": "answers" if answers else measures.get(f"{PORT}{port['name']}")}
        for port in facts["ports"]
        for answers in [measures.get(f"{ANSWERS}{port['name']}")]
    ]
    return ServiceRecord.model_validate(
        {
            **facts,
            "ports": ports,
            "exposure": measures.get("exposure"),
            "memory_used_mib": measures.get("memory_used_mib"),
            "installed_bytes": installed_bytes,
            "attacks": {
                name.removeprefix(ATTACK): str(told)
                for name, told in measures.items()
                if name.startswith(ATTACK)
            },
        }
    )


def table(services: Mapping[str, ServiceRecord]) -> Iterator[tuple[str, ...]]:
    """The rows of RUNBOOK.md's table, its head first."""
    yield ("service", "user", "exposure", "ports", "memory", "disk", "data volume")
    for name, record in services.items():
        yield (name, record.user, _exposure(record), *_seen(record), _data(record))


def attack_table(services: Mapping[str, ServiceRecord]) -> Iterator[tuple[str, str]]:
    """What was tried and what came of it, its head first; nothing when nothing was tried."""
    tried = list(dict.fromkeys(name for record in services.values() for name in record.attacks))
    if tried:
        yield ("tried from inside", "refused by")
    for attack in tried:
        told: dict[str, list[str]] = {}
        for name, record in services.items():
            told.setdefault(record.attacks.get(attack, "not tried"), []).append(name)
        # The usual answer last: the others are named.
        others = sorted(told, key=lambda text: len(told[text]))
        usual = others.pop()
        parts = [*(f"{', '.join(told[text])}: {text}" for text in others), usual]
        yield (attack, "; ".join(parts))


def _exposure(record: ServiceRecord) -> str:
    return "not measured" if record.exposure is None else f"{record.exposure}"


def _seen(record: ServiceRecord) -> tuple[str, str, str]:
    ports = ", ".join(f"{port} {port.seen or 'not seen'}" for port in record.ports)
    used, most = record.memory_used_mib, record.memory_mib
    memory = f"{used:.0f} of {most} MiB" if used is not None else f"at most {most} MiB"
    size = record.installed_bytes
    return ports, memory, "" if size is None else f"{size / 1e6:.0f} MB"


def _data(record: ServiceRecord) -> str:
    if record.volume is None:
        return "none"
    backup = record.backup
    kept = f", {' '.join(backup.paths)} backed up ({backup.tag})" if backup else ""
    return f"{record.volume.size_gib} GiB at {record.state_directory}{kept}"
