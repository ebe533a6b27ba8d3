"""The systemd units of a service: the server itself, its stdin, its volume, its secrets.

Pure: the same service gives the same text.
"""

from __future__ import annotations

from collections.abc import Iterable

from amibuild.library.sandbox import sandbox
from amibuild.library.service import Restart, Service

PROGRAMS = "/usr/lib/amibuild"
SECRETS = "/run/amibuild/secrets"
# A server that fails is never given up, for nobody is there to start it again; but it waits longer
# each time, from the first to the last of these.
RESTART_S = 2
RESTART_STEPS = 6
RESTART_AT_MOST_S = 60
# Of what it waits for: volume, secrets.
HELPER_RESTART_S = 15


def unit_text(service: Service) -> str:
    """The server's own unit."""
    file = service.file
    environment = [
        ("Environment", _word(f"{name}={service.fill_in(text)}"))
        for name, text in file.environment.items()
    ]
    secrets = [
        ("LoadCredential", f"{secret.name}:{SECRETS}/{service.name}/{secret.name}")
        for secret in file.secrets
    ]
    cpu = [] if file.cpu_percent is None else [("CPUQuota", f"{file.cpu_percent}%")]
    needed = needed_units(service)
    return _text(
        {
            "Unit": [
                ("Description", _specifiers(file.purpose)),
                ("After", " ".join(["network.target", *needed])),
                *([("Requires", " ".join(needed))] if needed else []),
                ("StartLimitIntervalSec", "0"),
            ],
            "Service": [
                ("Type", "exec"),
                ("User", service.user),
                ("Group", service.user),
                ("WorkingDirectory", service.state_directory),
                ("StateDirectory", service.user),
                ("StateDirectoryMode", "0750"),
                *environment,
                *secrets,
                *_stdin(service),
                *_first_start(service),
                ("ExecStart", _command(service, file.command)),
                *_stop(service),
                ("Restart", file.restart.value),
                *([] if file.restart is Restart.NO else _restart()),
                ("KillSignal", file.stop_signal.value),
                *_stop_codes(service),
                ("TimeoutStopSec", f"{file.stop_timeout_s}s"),
                ("MemoryMax", f"{file.memory_mib}M"),
                *cpu,
                ("TasksMax", str(file.tasks_max)),
                *sandbox(service),
            ],
            "Install": [("WantedBy", "multi-user.target")],
        }
    )


def needed_units(service: Service) -> list[str]:
    """The units of ours that must have done their work before the server starts."""
    return [
        *([f"{service.name}.socket"] if service.file.stop_input is not None else []),
        *([f"{service.name}-data.service"] if service.file.data.volume else []),
        *([f"{service.name}-secrets.service"] if service.file.secrets else []),
    ]


def socket_text(service: Service) -> str:
    """The FIFO that is the server's stdin.

    What was written to it and not read would reach the next start as its first command: so it is
    emptied when the server ended, and removed when it was stopped.
    """
    return _text(
        {
            "Unit": [
                ("Description", f"Standard input of {service.name}"),
                ("PartOf", service.unit),
            ],
            "Socket": [
                ("ListenFIFO", service.stdin),
                ("SocketUser", service.user),
                ("SocketGroup", service.user),
                ("SocketMode", "0600"),
                ("FlushPending", "yes"),
                ("RemoveOnStop", "yes"),
            ],
        }
    )


def data_unit_text(service: Service) -> str:
    """Mounts the volume. Not sandboxed: a mount made in its own namespace would end with it."""
    return _helper(
        f"Data volume of {service.name}",
        f"{PROGRAMS}/data-volume {service.name}",
        timeout_s=300,
    )


def secrets_unit_text(service: Service) -> str:
    return _helper(
        f"Secrets of {service.name}",
        f"{PROGRAMS}/fetch-secrets {service.name}",
        timeout_s=180,
        sandbox=[
            ("RuntimeDirectory", f"amibuild/secrets/{service.name}"),
            ("RuntimeDirectoryMode", "0700"),
            ("RuntimeDirectoryPreserve", "yes"),
            ("CapabilityBoundingSet", ""),
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "yes"),
            ("PrivateTmp", "yes"),
            ("PrivateDevices", "yes"),
            ("UMask", "0077"),
        ],
    )


def _helper(
    purpose: str, command: str, *, timeout_s: int, sandbox: Iterable[tuple[str, str]] = ()
) -> str:
    return _text(
        {
            "Unit": [
                ("Description", purpose),
                # User-data may have written which volume and which endpoint; the first name is
                # that of cloud-init since 24.3.
                ("After", "network-online.target cloud-init-network.service cloud-init.service"),
                ("Wants", "network-online.target"),
            ],
            "Service": [
                ("Type", "oneshot"),
                ("RemainAfterExit", "yes"),
                ("ExecStart", command),
                ("TimeoutStartSec", f"{timeout_s}s"),
                # A volume or an answer may come late, and nobody is there to start the server
                # then. Direct: what waits for this one is not told of each failure.
                ("Restart", "on-failure"),
                ("RestartMode", "direct"),
                ("RestartSec", f"{HELPER_RESTART_S}s"),
                *sandbox,
            ],
        }
    )


def _command(service: Service, words: Iterable[str]) -> str:
    # The first word is a path: a $ in it is not a variable, and a prefix such as + or ! is none.
    program, *arguments = (service.fill_in(word) for word in words)
    return " ".join([_word(program), *(_argument(word) for word in arguments)])


def _argument(word: str) -> str:
    return _word(word).replace("$", "$$")


def _first_start(service: Service) -> list[tuple[str, str]]:
    words = service.file.first_start
    if not words:
        return []
    program = f"{PROGRAMS}/first-start {service.state_directory}"
    return [("ExecStartPre", f"{program} {_command(service, words)}")]


def _stdin(service: Service) -> list[tuple[str, str]]:
    if service.file.stop_input is None:
        return []
    return [
        ("Sockets", f"{service.name}.socket"),
        ("StandardInput", "socket"),
        # Or its output would go into the FIFO as well.
        ("StandardOutput", "journal"),
        ("StandardError", "journal"),
    ]


def _stop(service: Service) -> list[tuple[str, str]]:
    line = service.file.stop_input
    if line is None:
        return []
    return [("ExecStop", f"{PROGRAMS}/stop-by-line {service.stdin} {_argument(line)}")]


def _stop_codes(service: Service) -> list[tuple[str, str]]:
    codes = service.file.stop_codes
    return [("SuccessExitStatus", " ".join(str(code) for code in codes))] if codes else []


def _restart() -> list[tuple[str, str]]:
    return [
        ("RestartSec", f"{RESTART_S}s"),
        ("RestartSteps", str(RESTART_STEPS)),
        ("RestartMaxDelaySec", f"{RESTART_AT_MOST_S}s"),
    ]


def _text(sections: dict[str, list[tuple[str, str]]]) -> str:
    return "\n".join(
        "".join([f"[{name}]\n", *(f"{key}={value}\n" for key, value in lines)])
        for name, lines in sections.items()
    )


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
