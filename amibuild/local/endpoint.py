"""The endpoint's process: `python -m amibuild.local.endpoint --data DIR`.

It says on stdout what happens until it is ready, one JSON object a line: `{"progress": …}`, then
`{"ready": true, "port": …}` or `{"error": …, "hint": …}`. It ends when its owner does: the pipe
whose reading end is --owner-fd closes with the owner, by whatever it dies.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amibuild.errors import AmibuildError, Interrupted, UsageError
from amibuild.local.settings import AUTO, Settings
from amibuild.proc import began

if TYPE_CHECKING:
    from amibuild.local.control import Lifetime

# What the endpoint must not take from the shell of the person who bakes.
for _name in [name for name in os.environ if name.startswith(("AWS_", "MOTO_"))]:
    del os.environ[_name]

log = logging.getLogger(__name__)

MACHINES = ("auto", "nspawn", "qemu", "none")
FOLDER_LOOK_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    # Amazon's own policies, which roles are given: 0.2 s and 40 MB, for each endpoint that is made.
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        return _serve(arguments)
    except (AmibuildError, Interrupted) as error:
        # `busy` is the process that has the store: the starter waits for it, or joins it.
        _say(
            {
                "error": error.message,
                "hint": error.hint,
                "busy": getattr(error, "pid", None),
                "usage": isinstance(error, UsageError),
            }
        )
        return error.exit_code


def _serve(arguments: argparse.Namespace) -> int:
    settings = Settings(
        machine=arguments.machine,
        port=arguments.port,
        latency=arguments.latency,
        faults=tuple(arguments.fault),
        script=arguments.script,
        call_log=arguments.call_log,
    )
    settings.check()
    from amibuild.local.faults import Fault
    from amibuild.local.machines.none import Latencies
    from amibuild.local.machines.script import always_succeeds, read_script

    latencies = Latencies.parse(settings.latency)
    script = read_script(settings.script) if settings.script else always_succeeds
    faults = tuple(map(Fault.parse, settings.faults))
    # Here, and not above: a wrong argument should be told without waiting for moto.
    from amibuild.local.announcement import announce, withdraw
    from amibuild.local.control import Lifetime
    from amibuild.local.keys import own_key
    from amibuild.local.service import Options, Service

    options = Options(
        data=arguments.data,
        machine=settings.machine,
        port=settings.port,
        base=not arguments.no_base,
        latencies=latencies,
        script=script,
        faults=faults,
        call_log=settings.call_log,
        settings=settings.facts(),
        key=own_key(arguments.data / "local"),
    )
    owned = arguments.owner_fd is not None
    lifetime = Lifetime(owned=owned, kept=not owned)
    _end_on_signals(lifetime)
    if owned:
        _when_closed(arguments.owner_fd, lifetime.owner_gone)
    service = Service(options, lifetime=lifetime, progress=lambda text: _say({"progress": text}))
    try:
        lifetime.serving = True
        facts = {
            "pid": os.getpid(),
            "began": began(os.getpid()),
            "port": service.port,
            "url": service.url,
            "machine": options.machine,
            "settings": options.settings,
            "access_key_id": options.key.id,
            "secret_access_key": options.key.secret,
            "started": service.started.isoformat(timespec="seconds"),
        }
        announce(options.local, facts)
        _say({"ready": True, **facts})
        while not lifetime.over.wait(FOLDER_LOOK_S):
            if not options.local.is_dir():
                # Nobody could find it any more, to use it or to stop it.
                log.warning("%s was removed: the endpoint ends", options.local)
                break
    finally:
        # Until its last machine is gone it is not over, and said to be so by its page.
        try:
            service.close()
        finally:
            withdraw(options.local)
    return 0


def _end_on_signals(lifetime: Lifetime) -> None:
    def end(signum: int, _: object) -> None:
        lifetime.over.set()
        if not lifetime.serving:
            # The base image may be in the making, which takes a minute.
            raise Interrupted(signal.Signals(signum).name)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, end)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="amibuild.local.endpoint", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="amibuild's data folder")
    parser.add_argument("--machine", choices=MACHINES, default=AUTO)
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--no-base", action="store_true", help="make no base image at the start")
    parser.add_argument("--latency", default="", help="driver none: run=8,ready=10,stop=22,…")
    parser.add_argument("--script", type=Path, help="driver none: what commands answer, in JSON")
    parser.add_argument("--fault", action="append", default=[], help="CreateImage:2=CODE[:after]")
    parser.add_argument("--call-log", type=Path, help="one JSON object a line for every call")
    owner = parser.add_mutually_exclusive_group()
    owner.add_argument("--owner-fd", type=int, help="the pipe that closes when the owner ends")
    owner.add_argument("--detached", action="store_true", help="stays until it is told to stop")
    return parser


def _when_closed(fd: int, then: Callable[[], None]) -> None:
    def wait() -> None:
        while os.read(fd, 64):
            pass
        then()

    threading.Thread(target=wait, name="owner", daemon=True).start()


def _say(what: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The owner is gone; that it ends us is the other pipe's business.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


if __name__ == "__main__":
    code = main()
    # All is closed. Taking apart what moto has in memory would take 0.4 s more, of each command.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
