"""What became of each instance: moto's books, with a machine's life behind each.

Source: EC2 user guide, "Instance lifecycle"; API reference, StateReason and "Error codes".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.ec2.models import EC2Backend
from moto.ec2.models.instances import StateReason

from amibuild.local.durable import StoreDamaged
from amibuild.local.fleet import machine_size
from amibuild.local.life import Life, Order, Wish
from amibuild.local.machines.base import Machine, MachineDriver
from amibuild.local.metadata import metadata_handler
from amibuild.local.overlay import launching, spot
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.identity import identity_of

CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
SSH_PORT_TAG = "amibuild:ssh-port"
USER_ASKED = ("Client.UserInitiatedShutdown", "User initiated shutdown")
_CODE = re.compile(r"(Client|Server)(\.[A-Za-z]+)+")
ITSELF = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")


def set_state(instance: Any, state: str) -> None:
    instance._state.name, instance._state.code = state, CODES[state]


def set_reason(instance: Any, code: str, message: str) -> None:
    instance.state_reason = StateReason(f"{code}: {message}", code)
    instance._reason = f"{message} ({datetime.now(UTC):%Y-%m-%d %H:%M:%S} GMT)"


@dataclass(frozen=True)
class Wanted:
    """What a checked RunInstances request asks of the machine itself."""

    public_key: str | None
    user_data: bytes | None
    type: launching.MachineType
    snapshot_id: str
    snapshot_gib: int
    volume_gib: int


class _Books:
    """Writes one instance's changes into the books, as its machine tells them."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def running(self, life: Life, machine: Machine) -> None:
        instance = self._instance
        with Desk.current.lock:
            nic = instance.nics[0]
            nic.private_ip_address = machine.private_ip
            nic.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": machine.private_ip}]
            if nic.public_ip_auto_assign is not False:
                nic.public_ip = machine.private_ip
            if machine.ssh_port != 22:
                instance.add_tag(SSH_PORT_TAG, str(machine.ssh_port))
            if instance.state == "pending":
                set_state(instance, "running")
                instance.state_reason, instance._reason = None, ""
                spot.begin_to_run(instance.ec2_backend, instance)

    def stopped(self, life: Life, *, by_itself: bool) -> None:
        instance = self._instance
        with Desk.current.lock:
            instance.nics[0].public_ip = None
            if instance.state != "shutting-down":
                set_state(instance, "stopped")
            set_reason(instance, *(ITSELF if by_itself else USER_ASKED))

    def failed(self, life: Life, reason: str) -> None:
        code, _, message = reason.partition(": ")
        if not _CODE.fullmatch(code):
            code, message = "Server.InternalError", reason
        with Desk.current.lock:
            self._end(code, message or "ordered")

    def terminated(self, life: Life) -> None:
        asked = self._instance.state == "shutting-down"
        with Desk.current.lock:
            self._end(*(self._instance.end_reason if asked else ITSELF))

    def _end(self, code: str, message: str) -> None:
        instance = self._instance
        instance.terminate()
        set_state(instance, "terminated")
        set_reason(instance, code, message)
        Desk.current.fleet.forget(instance.id)


class InstanceBooks(EC2Backend):
    def boot(self, instance: Any, wanted: Wanted, driver: MachineDriver) -> None:
        """Starts the machine behind an instance that is in the books as pending."""
        desk = Desk.current
        hostname = instance.private_dns_name

        def prepare(disk: Path) -> None:
            try:
                desk.store.materialise(wanted.snapshot_id, disk, size_gib=wanted.snapshot_gib)
            except StoreDamaged as damage:
                self.snapshot_lost(wanted.snapshot_id, damage)
                raise
            desk.grow(disk, wanted.volume_gib)
            self.fill_data_volumes(instance)

        def order(folder: Path, number: int) -> Order:
            cpus, memory_mib = machine_size(wanted.type.vcpus, wanted.type.memory_mib)
            return Order(
                instance_id=instance.id,
                folder=folder / instance.id,
                hostname=hostname.partition(".")[0],
                public_key=wanted.public_key,
                user_data=wanted.user_data,
                network_index=number,
                cpus=cpus,
                memory_mib=memory_mib,
                endpoint_port=desk.port,
                prepare=prepare,
                volumes=lambda: self.data_volumes(instance),
                metadata=metadata_handler(identity_of(self, instance, hostname, wanted.public_key)),
                terminate_on_shutdown=lambda: (
                    instance.instance_initiated_shutdown_behavior == "terminate"
                ),
            )

        desk.fleet.launch(order, driver, events=_Books(instance))

    def check_stop(self, instance: Any) -> None:
        """Raises: Refusal where it can't be stopped. Nothing is begun."""
        if instance.state not in {"running", "stopping", "stopped"}:
            raise _wrong_state(instance, "stopped")
        if instance.disable_api_stop:
            raise _protected(instance, "stopped", "disableApiStop")
        if instance.lifecycle == "spot":
            raise Refusal(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{instance.id}' because it is associated with a "
                "one-time Spot Instance request. You can only stop Spot Instances associated with "
                "persistent Spot Instance requests.",
            )

    def stop_instance(self, instance: Any, *, force: bool) -> None:
        if instance.state == "running":
            set_state(instance, "stopping")
            set_reason(instance, *USER_ASKED)
            self._wish(instance, Wish.KILL if force else Wish.STOP)

    def check_start(self, instance: Any) -> None:
        if instance.state not in {"pending", "running", "stopped"}:
            raise _wrong_state(instance, "started")

    def start_instance(self, instance: Any) -> None:
        if instance.state == "stopped":
            set_state(instance, "pending")
            instance.state_reason, instance._reason = None, ""
            self._wish(instance, Wish.RUN)

    def check_reboot(self, instance: Any) -> None:
        if instance.state != "running":
            raise _wrong_state(instance, "rebooted")

    def reboot_instance(self, instance: Any) -> None:
        self._wish(instance, Wish.REBOOT)

    def check_terminate(self, instance: Any) -> None:
        if instance.disable_api_termination and instance.state != "terminated":
            raise _protected(instance, "terminated", "disableApiTermination")

    def terminate_instance(self, instance: Any, reason: tuple[str, str] = USER_ASKED) -> None:
        if instance.state in {"shutting-down", "terminated"}:
            return
        set_state(instance, "shutting-down")
        instance.end_reason = reason
        set_reason(instance, *reason)
        self._wish(instance, Wish.TERMINATE)

    def _wish(self, instance: Any, wish: Wish) -> None:
        life = Desk.current.fleet.life(instance.id)
        if life is not None:
            life.wish(wish)


def _wrong_state(instance: Any, verb: str) -> Refusal:
    return Refusal(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is not in a state from which it can be {verb}.",
    )


def _protected(instance: Any, verb: str, attribute: str) -> Refusal:
    return Refusal(
        "OperationNotPermitted",
        f"The instance '{instance.id}' may not be {verb}. Modify its '{attribute}' instance "
        "attribute and try again.",
    )
