"""Instances: moto's books, with a machine's life behind each."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import StateReason
from moto.ec2.responses import EC2Response

from amibuild.errors import HostError
from amibuild.local.durable import StoreDamaged
from amibuild.local.fleet import machine_size
from amibuild.local.life import Life, Order, Wish
from amibuild.local.machines.base import Machine, MachineDriver
from amibuild.local.metadata import metadata_handler
from amibuild.local.overlay import launching
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.identity import identity_of
from amibuild.names import Tag

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

    def stopped(self, life: Life, *, by_itself: bool) -> None:
        instance = self._instance
        with Desk.current.lock:
            instance.nics[0].public_ip = None
            if instance.state != "shutting-down":
                set_state(instance, "stopped")
            set_reason(instance, *(ITSELF if by_itself else USER_ASKED))

    def failed(self, life: Life, reason: str) -> None:
        with Desk.current.lock:
            self._end("Server.InternalError", reason)

    def terminated(self, life: Life) -> None:
        asked = self._instance.state == "shutting-down"
        with Desk.current.lock:
            self._end(*(USER_ASKED if asked else ITSELF))

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
                metadata=metadata_handler(
                    identity_of(self, instance, hostname, wanted.public_key, wanted.user_data)
                ),
                terminate_on_shutdown=lambda: (
                    instance.instance_initiated_shutdown_behavior == "terminate"
                ),
            )

        desk.fleet.launch(order, driver, events=_Books(instance))

    def stop_instance(self, instance: Any, *, force: bool) -> None:
        if instance.state in {"stopping", "stopped"}:
            return
        if instance.state != "running":
            raise _wrong_state(instance, "stopped")
        set_state(instance, "stopping")
        set_reason(instance, *USER_ASKED)
        self._wish(instance, Wish.KILL if force else Wish.STOP)

    def start_instance(self, instance: Any) -> None:
        if instance.state in {"pending", "running"}:
            return
        if instance.state != "stopped":
            raise _wrong_state(instance, "started")
        set_state(instance, "pending")
        instance.state_reason, instance._reason = None, ""
        self._wish(instance, Wish.RUN)

    def reboot_instance(self, instance: Any) -> None:
        if instance.state != "running":
            raise _wrong_state(instance, "rebooted")
        self._wish(instance, Wish.REBOOT)

    def terminate_instance(self, instance: Any) -> None:
        if instance.state in {"shutting-down", "terminated"}:
            return
        set_state(instance, "shutting-down")
        set_reason(instance, *USER_ASKED)
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


def listed() -> list[dict[str, Any]]:
    """Every instance that is not terminated, with what is behind it on this host."""
    found = []
    with Desk.current.lock:
        for _, region, backend in ec2_backends.iter_backends():
            for instance in backend.all_instances():
                life = Desk.current.fleet.life(instance.id)
                if life is None:
                    continue
                machine = life.machine
                found.append(
                    {
                        "id": instance.id,
                        "region": region,
                        "image": instance.image_id,
                        "state": instance.state,
                        "driver": str(life.driver.driver),
                        "agent": life.ready_since is not None,
                        "pids": list(machine.host_pids()) if machine else [],
                        "address": machine.private_ip if machine else None,
                        "ssh_port": machine.ssh_port if machine else None,
                        "disk": str(life.disk),
                        "public_key": life.order.public_key,
                        "tags": {t["key"]: t["value"] for t in instance.get_tags()},
                    }
                )
    return found


class InstanceResponses(EC2Response):
    params: dict[str, Any]

    def run_instances(self) -> ActionResult:
        backend: Any = self.ec2_backend
        token = self.params.get("ClientToken")
        mark = launching.fingerprint(self.params)
        known = backend.launched.get(token) if token else None
        if known is not None:
            if known.fingerprint != mark:
                raise launching.mismatch()
            return ActionResult(known.made)
        params = launching.with_template(backend, self.params)
        image = launching.find_image(backend, params.get("ImageId"))
        devices = launching.block_devices(backend, image, params.get("BlockDeviceMappings", []))
        root = devices[0]["Ebs"]
        wanted = Wanted(
            public_key=launching.public_key(backend, params.get("KeyName")),
            user_data=launching.read_user_data(params.get("UserData")),
            type=launching.machine_type(params.get("InstanceType", "m1.small"), image.architecture),
            snapshot_id=image.ebs_snapshot.id,
            snapshot_gib=image.ebs_snapshot.volume_size,
            volume_gib=int(root["VolumeSize"]),
        )
        options = dict(params.get("MetadataOptions", {}))
        if image.imds_support == "v2.0":
            options.setdefault("HttpTokens", "required")
        interfaces = [
            {**nic, "DeleteOnTermination": nic.get("DeleteOnTermination", True)}
            for nic in params.get("NetworkInterfaces", [])
        ]
        tags = self._parse_tag_specification()
        driver = _driver(tags.get("instance", {}).get(Tag.PURPOSE, ""))
        self.params = {
            **params,
            "NetworkInterfaces": interfaces,
            "ImageId": image.id,
            "MinCount": params.get("MaxCount", 1),
            "BlockDeviceMappings": devices,
            "MetadataOptions": options,
        }
        result: ActionResult = super().run_instances()
        reservation: Any = result.result
        for instance in reservation.instances:
            _complete(instance, reservation, devices, tags.get("network-interface", {}))
            set_state(instance, "pending")
            if not interfaces:
                instance.nics[0].delete_on_termination = True
            backend.boot(instance, wanted, driver)
        if token:
            backend.launched[token] = launching.Launched(mark, reservation)
        return result

    def describe_instances(self) -> ActionResult:
        launching.check_instance_ids(self.params.get("InstanceIds", []))
        result: ActionResult = super().describe_instances()
        return result

    def stop_instances(self) -> ActionResult:
        force = bool(self.params.get("Force", False))
        return self._change(
            "StoppingInstances", lambda backend, i: backend.stop_instance(i, force=force)
        )

    def start_instances(self) -> ActionResult:
        return self._change("StartingInstances", lambda backend, i: backend.start_instance(i))

    def terminate_instances(self) -> ActionResult:
        return self._change(
            "TerminatingInstances", lambda backend, i: backend.terminate_instance(i)
        )

    def reboot_instances(self) -> ActionResult:
        self._change("", lambda backend, i: backend.reboot_instance(i))
        return EmptyResult()

    def get_console_output(self) -> ActionResult:
        (instance,) = self._named([self.params["InstanceId"]])
        life = Desk.current.fleet.life(instance.id)
        text = base64.b64encode(life.console() if life is not None else b"")
        return ActionResult(
            {
                "InstanceId": instance.id,
                "Timestamp": datetime.now(UTC),
                "Output": Base64EncodedString.from_encoded_bytes(text),
            }
        )

    def _named(self, ids: list[str]) -> list[Any]:
        """The instances of these ids: all of them, or an error before anything is done."""
        launching.check_instance_ids(ids)
        backend: Any = self.ec2_backend
        if not ids:
            raise Refusal("InvalidParameterCombination", "No instances specified")
        found: list[Any] = backend.get_multi_instances_by_id(ids)
        return found

    def _change(self, key: str, change: Callable[[Any, Any], None]) -> ActionResult:
        instances = self._named(self.params.get("InstanceIds", []))
        self.error_on_dryrun()
        changes = []
        for instance in instances:
            before = {"Code": instance.state_code, "Name": instance.state}
            change(self.ec2_backend, instance)
            after = {"Code": instance.state_code, "Name": instance.state}
            changes.append(
                {"InstanceId": instance.id, "PreviousState": before, "CurrentState": after}
            )
        return ActionResult({key: changes})


def _driver(purpose: str) -> MachineDriver:
    try:
        return Desk.current.fleet.choose(purpose)
    except HostError as error:
        raise Refusal("UnsupportedOperation", str(error)) from error


def _complete(
    instance: Any, reservation: Any, devices: list[dict[str, Any]], nic_tags: dict[str, str]
) -> None:
    """What moto leaves out of a launch: the interface's tags, and the volumes' speed."""
    instance.reservation_id = reservation.id
    instance.ena_support = True
    instance.boot_mode = "uefi"
    for nic in instance.nics.values():
        nic.add_tags(nic_tags)
        nic.public_ip = None  # until the machine has one
    if not instance.security_groups:
        instance.security_groups = list(instance.nics[0].group_set)
    speeds = {d["DeviceName"]: d.get("Ebs", {}) for d in devices}
    for device, block in instance.get_block_device_mapping:
        volume, ebs = instance.ec2_backend.get_volume(block.volume_id), speeds.get(device, {})
        volume.iops = ebs.get("Iops", volume.iops)
        default = 125 if volume.volume_type == "gp3" else None
        volume.throughput = ebs.get("Throughput", default)
