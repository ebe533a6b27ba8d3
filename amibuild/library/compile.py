"""What one service.toml becomes: a step with user, directories, units, firewall, logs, checks.

Pure: the same service gives the same step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from amibuild.library.artifact import artifact_parts
from amibuild.library.sandbox import METADATA
from amibuild.library.service import Service
from amibuild.library.step import BuildStep, StepFile, StepKind
from amibuild.library.unit import data_unit_text, secrets_unit_text, socket_text, unit_text

# systemd-analyze calls 0 to 10 the exposure of a unit; Debian's own game servers get 9.2.
EXPOSURE_LIMIT = 2.0
LOGS_KEPT_DAYS = 365
PROGRAMS = ("count-players", "data-volume", "fetch-secrets", "first-start", "stop-by-line")
FACTS_FILE = "facts.json"
ATTACK = tuple(f"attack/{name}.py" for name in ("__init__", "__main__", "attempts", "means"))
GENERIC_CHECKS = ("test_every_service.py", "test_sandbox.py", *ATTACK)


def compile_service(service: Service, image: str = "image") -> BuildStep:
    """`image` is the recipe's name of the image, which log groups and secrets are called after."""
    resources = files("amibuild.library").joinpath("every_service")
    file, install = service.file, service.install_directory
    brought = artifact_parts(file.all_artifacts, file.steam, service.user, install)
    facts = {**service_facts(service, image), **(brought.facts or {})}
    return BuildStep(
        name=service.name,
        kind=StepKind.SERVICE,
        purpose=service.file.purpose,
        script=resources.joinpath("run.sh").read_text(),
        timeout_s=service.file.timeout_s,
        files=(
            *_units(service),
            StepFile("sysusers.conf", _sysusers(service).encode()),
            StepFile("tmpfiles.conf", _tmpfiles(service).encode()),
            StepFile("firewall.nft", firewall_text(service).encode()),
            StepFile("cloudwatch.json", _json(cloudwatch_config(service, image))),
            *(
                [StepFile("logrotate.conf", logrotate_text(service).encode())]
                if service.file.logs.files
                else []
            ),
            StepFile(FACTS_FILE, _json(facts)),
            *(
                StepFile(f"bin/{name}", resources.joinpath("bin", name).read_bytes(), 0o755)
                for name in PROGRAMS
            ),
            *_configuration(service),
            *brought.files,
        ),
        environment={
            "SERVICE_NAME": service.name,
            "SERVICE_USER": service.user,
            "SERVICE_PACKAGES": " ".join(_packages(service)),
            "SERVICE_REPLACED_UNITS": " ".join(service.file.replaces_units),
            **(brought.environment or {}),
        },
        checks=(
            *(StepFile(name, resources.joinpath(name).read_bytes()) for name in GENERIC_CHECKS),
            *brought.checks,
            *service.checks,
        ),
        facts=facts,
        sources=brought.sources,
    )


def service_facts(service: Service, image: str = "image") -> dict[str, Any]:
    """What the checks, the programs on the image, the manifest and Terraform want to know.

    Plain JSON, with nothing secret in it: it is on the image as /etc/amibuild/services/NAME.json.
    """
    file = service.file
    return {
        "name": service.name,
        "user": service.user,
        "group": service.user,
        "unit": service.unit,
        "state_directory": service.state_directory,
        "config_directory": service.config_directory,
        "ports": [port.model_dump(mode="json") for port in file.ports],
        "packages": list(file.packages),
        "replaces_units": list(file.replaces_units),
        "memory_mib": file.memory_mib,
        "runtime": file.runtime.value,
        "runs_from_state": file.runs_from_state,
        "uses_role": file.uses_role,
        "tasks_max": file.tasks_max,
        "cpu_percent": file.cpu_percent,
        "stdin": None if file.stop_input is None else service.stdin,
        "stop_timeout_s": file.stop_timeout_s,
        "exposure_limit": EXPOSURE_LIMIT,
        "volume": {"size_gib": file.data.size_gib} if file.data.volume else None,
        "backup": {"paths": list(file.data.backup), "tag": file.data.backup_tag}
        if file.data.backup
        else None,
        "secrets": [
            {
                "name": secret.name,
                "id": secret.id or f"/{image}/{service.name}/{secret.name}",
                "from": secret.store.value,
            }
            for secret in file.secrets
        ],
        "players": _players(service),
        "log_group": _log_group(service, image),
        "log_files": _log_files(service),
    }


def _packages(service: Service) -> list[str]:
    """Its own, and what our programs for it need."""
    file = service.file
    needed = [
        *(["logrotate"] if file.logs.files else []),
        *(["curl"] if file.secrets or file.data.volume else []),
    ]
    return [*file.packages, *(name for name in needed if name not in file.packages)]


def _players(service: Service) -> dict[str, Any]:
    """How to count them; ports by number. All public ones when service.toml names none."""
    players = service.file.players
    ports = {port.name: port for port in service.file.ports}
    if players.http is not None:
        probe = players.http
        number = ports[probe.port].port
        return {"http": {"port": number, "path": probe.path, "key": probe.key}}
    if players.command:
        return {"command": [service.fill_in(word) for word in players.command]}
    if players.tcp or players.udp:
        return {
            "tcp": [ports[name].port for name in players.tcp],
            "udp": [ports[name].port for name in players.udp],
        }
    return {protocol: _public(service, protocol) for protocol in ("tcp", "udp")}


def _public(service: Service, protocol: str) -> list[int]:
    return [p.port for p in service.file.ports if p.public and p.protocol == protocol]


def _units(service: Service) -> Iterator[StepFile]:
    """Each as units/NAME."""
    name = service.name
    yield StepFile(f"units/{service.unit}", unit_text(service).encode())
    if service.file.stop_input is not None:
        yield StepFile(f"units/{name}.socket", socket_text(service).encode())
    if service.file.data.volume:
        yield StepFile(f"units/{name}-data.service", data_unit_text(service).encode())
    if service.file.secrets:
        yield StepFile(f"units/{name}-secrets.service", secrets_unit_text(service).encode())


def _configuration(service: Service) -> Iterator[StepFile]:
    """Its own files, with placeholders filled in where they are text; other braces stay."""
    for file in service.configuration:
        try:
            content = service.fill_in(file.content.decode()).encode()
        except UnicodeDecodeError:
            content = file.content
        yield StepFile(f"config/{file.path}", content)


def firewall_text(service: Service) -> str:
    """What it adds to the firewall, where the recipe has the step `hardening`.

    Its public ports, in that step's table, and a table of its own that closes the metadata service
    to its user: by `reject`, so that a program which asks there is told at once. Declared before it
    is deleted, for the file is read again whenever the firewall is.

    run.sh puts the user's number in the place of SERVICE_UID. nft looks a name up when it loads the
    files, and loads all or none: one without its user would leave the machine without a firewall.
    """
    lines = [f"# {service.name}"]
    for protocol in ("tcp", "udp"):
        if numbers := _public(service, protocol):
            listed = ", ".join(str(number) for number in sorted(numbers))
            lines.append(f"add element inet amibuild {protocol}_open {{ {listed} }}")
    if service.file.uses_role:
        return "\n".join([*lines, ""])
    table = f"table inet {service.user}"
    lines += [table, f"delete {table}", f"{table} {{", "    chain output {"]
    lines.append("        type filter hook output priority filter; policy accept")
    for address in METADATA:
        family = "ip6" if ":" in address else "ip"
        matched = f"meta skuid SERVICE_UID {family} daddr {address}"
        lines.append(f'        {matched} counter reject comment "{service.user}"')
    return "\n".join([*lines, "    }", "}", ""])


def cloudwatch_config(service: Service, image: str) -> dict[str, Any]:
    """The CloudWatch agent's part for this service; the step `logging` joins all of them.

    Source: the agent's configuration schema, logs_collected.journald and logs_collected.files.
    """
    group = {"log_group_name": _log_group(service, image), "retention_in_days": LOGS_KEPT_DAYS}
    collected: dict[str, Any] = {
        "journald": {
            "collect_list": [
                {**group, "log_stream_name": "{instance_id}", "units": [service.unit]},
            ]
        }
    }
    if found := _log_files(service):
        collected["files"] = {
            "collect_list": [
                {**group, "log_stream_name": "{instance_id}-files", "file_path": path}
                for path in found
            ]
        }
    return {"logs": {"logs_collected": collected}}


def _log_group(service: Service, image: str) -> str:
    return f"/{image}/{service.name}"


def _log_files(service: Service) -> list[str]:
    return [service.fill_in(path) for path in service.file.logs.files]


def logrotate_text(service: Service) -> str:
    """One day is kept, never compressed: what is older is in CloudWatch.

    copytruncate, since game servers keep their log open and know no signal to open it anew. `su`,
    since the folder is the service's own: root would refuse to rotate there, and it should.
    """
    return "\n".join(
        [
            " ".join(_log_files(service)) + " {",
            f"    su {service.user} {service.user}",
            *(
                f"    {word}"
                for word in ("daily", "rotate 1", "nocompress", "copytruncate", "missingok")
            ),
            "    notifempty",
            "}",
            "",
        ]
    )


def _sysusers(service: Service) -> str:
    # The purpose would not do as a full name: that can't hold a colon.
    return f'u {service.user} - "Service {service.name}" {service.state_directory}\n'


def _tmpfiles(service: Service) -> str:
    return f"d {service.state_directory} 0750 {service.user} {service.user}\n"


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
