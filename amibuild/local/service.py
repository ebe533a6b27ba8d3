"""The endpoint as an object: store, machines, moto with our overlay, and the server in front.

`endpoint.py` makes a process of it; contract tests use it as it is.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# First: it keeps moto's catalogues out of every import that follows.
from amibuild.local.overlay import loading  # noqa: F401  # isort: skip

from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from amibuild.errors import HostError
from amibuild.local import debian, disk, garbage
from amibuild.local.base import ensure_base
from amibuild.local.control import Control, Lifetime
from amibuild.local.faults import Fault, Faults, check_names
from amibuild.local.fleet import ChooseDriver, Fleet
from amibuild.local.gateway import CallLog, Gateway
from amibuild.local.keys import AccessKey, is_known, new_key
from amibuild.local.leftovers import MACHINES, tidy_held
from amibuild.local.machines.none import Latencies, NoneDriver
from amibuild.local.machines.script import CommandScript, always_succeeds
from amibuild.local.overlay import operations
from amibuild.local.overlay.desk import Desk
from amibuild.local.overlay.instances import listed
from amibuild.local.overlay.picking import words_of
from amibuild.local.overlay.takeover import take_over
from amibuild.local.records import ImageRecord, ParameterRecord
from amibuild.local.settings import folder_of
from amibuild.local.store import Store
from amibuild.local.usage import usage

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
NONE_GIB = 2


@dataclass(frozen=True)
class Options:
    """`data` is amibuild's data folder. `base` off: no base image is made at the start.

    `settings` is how all this was asked for, to be told to who asks (settings.py). `key` opens it.
    """

    data: Path
    machine: str = "auto"
    port: int = 0
    base: bool = True
    latencies: Latencies = field(default_factory=Latencies)
    script: CommandScript = always_succeeds
    faults: tuple[Fault, ...] = ()
    call_log: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    key: AccessKey = field(default_factory=new_key)

    @property
    def scripted(self) -> bool:
        return self.machine == "none"

    @property
    def local(self) -> Path:
        return self.data / "local"

    @property
    def root(self) -> Path:
        return self.local / folder_of(self.machine)


class _Handler(MotoRequestHandler):
    """Quiet: the gateway keeps the log. A client that says nothing for a minute is let go."""

    timeout = 60

    def log(self, type: str, message: str, *args: Any) -> None:
        log.debug(message, *args)


class Service:
    """A running endpoint. One a process: moto's books are the process's."""

    def __init__(
        self,
        options: Options,
        *,
        lifetime: Lifetime | None = None,
        progress: Callable[[str], None] = log.info,
    ) -> None:
        """Raises: UsageError for a fault that can't hit; StoreBusy; HostError, when no machine can
        run here or the base can't be made.
        """
        check_names(options.faults, operations.every_name)
        self.options = options
        self.lifetime = lifetime or Lifetime(owned=True)
        self.started = datetime.now(UTC)
        self.scripted = NoneDriver(
            options.latencies, options.script, faults := Faults(options.faults)
        )
        self.store = Store.open(options.root / "store")
        try:
            self._open(faults, progress)
        except BaseException:
            self.store.close()
            raise

    def _open(self, faults: Faults, progress: Callable[[str], None]) -> None:
        options = self.options
        for left in tidy_held(options.root):
            progress(f"removed what a killed endpoint left: {left}")
        # Before the base image, which may take a minute: a port that is taken is told at once.
        with _listen(options.port) as listener:
            self._serve(listener, faults, progress)

    def _serve(
        self, listener: socket.socket, faults: Faults, progress: Callable[[str], None]
    ) -> None:
        options = self.options
        choose = self._drivers()
        self.base = self._base(progress) if options.base else None
        freed = self.store.collect_if_much().bytes
        if freed:
            progress(f"freed {freed >> 20} MiB that deleted images have left")
        self.fleet = Fleet(options.root / MACHINES, choose)
        self.scripted.unwanted = self._unwanted
        desk = self._desk = Desk(
            store=self.store,
            fleet=self.fleet,
            grow=_lengthen if options.scripted else disk.grow,
            trim=_leave if options.scripted else disk.trim,
            before_capture=self.scripted.before_capture,
            faults=faults,
            validation_s=options.latencies.parameter,
        )
        take_over(desk)
        self._calls = CallLog(options.call_log)
        app = DomainDispatcherApplication(create_backend_app)
        gateway = Gateway(
            app,
            Control(
                self.lifetime, options.key.secret, self._status, self.fleet.life, self._collect
            ),
            faults,
            self._calls,
            judge=operations.judge,
            words=words_of,
            opens=lambda key_id: is_known(key_id, options.key),
            over=self.lifetime.over,
        )
        self._server: BaseWSGIServer = make_server(
            HOST,
            options.port,
            gateway,
            threaded=True,
            request_handler=_Handler,
            fd=listener.fileno(),  # the server takes a copy of it
        )
        self.port = desk.port = self._server.port
        self._thread = threading.Thread(
            target=lambda: self._server.serve_forever(poll_interval=0.05),
            name="endpoint",
            daemon=True,
        )
        self._thread.start()
        threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def close(self) -> None:
        """Ends every machine, then the server. Safe to call twice."""
        self.scripted.hurry()
        self.lifetime.over.set()
        self._desk.closing.set()
        self.fleet.close()
        self._desk.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._calls.close()
        self.store.close()

    def _drivers(self) -> ChooseDriver:
        if self.options.scripted:
            return lambda purpose: self.scripted
        # Machines need much that driver none, and so every contract test, does without.
        from amibuild.local.machines import choose

        return choose(self.options.machine, self.options.local)

    def _unwanted(self, instance_id: str) -> bool:
        life = self.fleet.life(instance_id)
        return life is None or life.leaving

    def _base(self, progress: Callable[[str], None]) -> ImageRecord:
        if self.options.scripted:
            return _pretend_base(self.store, self.options.root)
        return ensure_base(self.store, self.options.local / "base", progress=progress)

    def _status(self) -> dict[str, Any]:
        instances = [{**one, **usage(one)} for one in listed()]
        return {
            "pid": os.getpid(),
            "port": self.port,
            "machine": self.options.machine,
            "settings": self.options.settings,
            "started": self.started.isoformat(timespec="seconds"),
            "data": str(self.options.data),
            "log": str(self.options.local / "endpoint.log"),
            "store": garbage.kept(self.store),
            "instances": instances,
        }

    def _collect(self, dry_run: bool) -> dict[str, Any]:
        return {"dry_run": dry_run, **asdict(garbage.of_store(self.store, dry_run=dry_run))}


def _listen(port: int) -> socket.socket:
    """Raises: HostError, where werkzeug would end the process."""
    try:
        return socket.create_server((HOST, port), backlog=128)
    except OSError as error:
        raise HostError(
            f"port {port} of {HOST} can't be had: {os.strerror(error.errno or 0)}",
            hint="another --port, or none for one that is free",
        ) from error


def _warm_up() -> None:
    """botocore's models of EC2 and SSM take 0.2 s: read while the client still starts."""
    for service in ("ec2", "ssm"):
        get_service_model(service)


def _leave(_: Path) -> None:
    """A scripted machine's disk has no file system."""


def _lengthen(disk: Path, size_gib: int) -> None:
    """The disk of a machine that does not exist has no file system to grow."""
    os.truncate(disk, size_gib << 30)


def _pretend_base(store: Store, root: Path) -> ImageRecord:
    """A base image without a byte in it, for machines that are scripted."""
    for image in store.images():
        if image.owner == debian.OWNER:
            return image
    now = datetime.now(UTC)
    empty = root / "empty.raw"
    with empty.open("wb") as file:
        file.truncate(NONE_GIB << 30)
    try:
        snapshot = store.capture(
            empty,
            f"snap-{secrets.token_hex(9)[:17]}",
            volume_size_gib=NONE_GIB,
            owner=debian.OWNER,
            description="nothing",
        )
    finally:
        empty.unlink()
    image = ImageRecord(
        id=f"ami-{secrets.token_hex(9)[:17]}",
        name=f"debian-13-amd64-{now:%Y%m%d}-none",
        description="No disk at all, for machines that are scripted",
        owner=debian.OWNER,
        created=now,
        imds_support="v2.0",
        snapshot_id=snapshot.id,
        volume_size_gib=NONE_GIB,
    )
    store.put_image(image)
    store.put_parameter(
        ParameterRecord(
            name=debian.PARAMETER,
            value=image.id,
            version=1,
            data_type="aws:ec2:image",
            last_modified=now,
        )
    )
    return image
