"""What one service.toml becomes: a step with user, directories, sandboxed unit, checks, facts.

Pure: the same service gives the same step.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from amibuild.library.service import Restart, Service
from amibuild.library.step import BuildStep, StepFile, StepKind

# systemd-analyze calls 0 to 10 the exposure of a unit; Debian's own game servers get 9.2.
EXPOSURE_LIMIT = 2.0
RESTART_S = 5

# Sandboxed like this, a unit's exposure is 1.1 (systemd 252 and 257). A good figure says nothing
# about whether the program still works: the checks look for its listening sockets as well.
SANDBOX = (
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("ProtectProc", "invisible"),
    ("ProcSubset", "pid"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateUsers", "yes"),
    ("PrivateIPC", "yes"),
    ("RemoveIPC", "yes"),
    ("KeyringMode", "private"),
    ("LockPersonality", "yes"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged @resources"),
    ("SystemCallErrorNumber", "EPERM"),
    ("UMask", "0077"),
)


def compile_service(service: Service) -> BuildStep:
    resources = files("amibuild.library").joinpath("every_service")
    generic = "test_every_service.py"
    return BuildStep(
        name=service.name,
        kind=StepKind.SERVICE,
        purpose=service.file.purpose,
        script=resources.joinpath("run.sh").read_text(),
        timeout_s=service.file.timeout_s,
        files=(
            StepFile("unit.service", unit_text(service).encode()),
            StepFile("sysusers.conf", _sysusers(service).encode()),
            StepFile("tmpfiles.conf", _tmpfiles(service).encode()),
            *(StepFile(f"config/{f.path}", f.content) for f in service.configuration),
        ),
        environment={
            "SERVICE_NAME": service.name,
            "SERVICE_USER": service.user,
            "SERVICE_PACKAGES": " ".join(service.file.packages),
            "SERVICE_REPLACED_UNITS": " ".join(service.file.replaces_units),
        },
        checks=(
            StepFile(generic, resources.joinpath(generic).read_bytes()),
            *service.checks,
        ),
        facts=service_facts(service),
    )


def service_facts(service: Service) -> dict[str, Any]:
    """What the checks, the manifest and Terraform want to know. Plain JSON."""
    return {
        "name": service.name,
        "user": service.user,
        "group": service.user,
        "unit": service.unit,
        "state_directory": service.state_directory,
        "config_directory": service.config_directory,
        "ports": [port.model_dump(mode="json") for port in service.file.ports],
        "packages": list(service.file.packages),
        "replaces_units": list(service.file.replaces_units),
        "memory_mib": service.file.memory_mib,
        "exposure_limit": EXPOSURE_LIMIT,
    }


def unit_text(service: Service) -> str:
    """The systemd unit."""
    file = service.file
    environment = [
        ("Environment", _word(f"{name}={service.fill_in(text)}"))
        for name, text in file.environment.items()
    ]
    sandbox = SANDBOX if file.writable_code else (*SANDBOX, ("MemoryDenyWriteExecute", "yes"))
    # The first word is a path: a $ in it is not a variable, and a prefix such as + or ! is none.
    program, *arguments = (service.fill_in(word) for word in file.command)
    command = " ".join([_word(program), *(_word(word).replace("$", "$$") for word in arguments)])
    sections = {
        "Unit": [
            ("Description", _specifiers(file.purpose)),
            ("After", "network.target"),
        ],
        "Service": [
            ("Type", "exec"),
            ("User", service.user),
            ("Group", service.user),
            ("WorkingDirectory", service.state_directory),
            ("StateDirectory", service.user),
            ("StateDirectoryMode", "0750"),
            *environment,
            ("ExecStart", command),
            ("Restart", file.restart.value),
            *([] if file.restart is Restart.NO else [("RestartSec", f"{RESTART_S}s")]),
            ("KillSignal", file.stop_signal.value),
            ("TimeoutStopSec", f"{file.stop_timeout_s}s"),
            ("MemoryMax", f"{file.memory_mib}M"),
            *sandbox,
        ],
        "Install": [("WantedBy", "multi-user.target")],
    }
    return "\n".join(_section(name, lines) for name, lines in sections.items())


def _section(name: str, lines: Iterable[tuple[str, str]]) -> str:
    return "".join([f"[{name}]\n", *(f"{key}={value}\n" for key, value in lines)])


def _sysusers(service: Service) -> str:
    # The purpose would not do as a full name: that can't hold a colon.
    return f'u {service.user} - "Service {service.name}" {service.state_directory}\n'


def _tmpfiles(service: Service) -> str:
    return f"d {service.state_directory} 0750 {service.user} {service.user}\n"


def _word(text: str) -> str:
    """One word of a systemd setting, quoted when it needs to be.

    Source: systemd.syntax(7), "Quoting", and systemd.unit(5), "Specifiers".
    """
    text = _specifiers(text).replace("\\", "\\\\")
    if text and not any(c.isspace() or c in "\"';" for c in text):
        return text
    return '"' + text.replace('"', '\\"').replace("\t", "\\t") + '"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")
