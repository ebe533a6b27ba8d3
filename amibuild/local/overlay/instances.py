"""Instances as they are asked for: launches, lists and changes of state."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.models import ec2_backends
from moto.ec2.responses import EC2Response

from amibuild.errors import HostError
from amibuild.local.machines.base import MachineDriver
from amibuild.local.overlay import imds, launching, spot
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.lives import USER_ASKED, Wanted, set_state
from amibuild.local.overlay.paging import page
from amibuild.local.overlay.templates import with_template
from amibuild.names import Tag


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
        params, marks = with_template(backend, self.params)
        launching.check_request(params)
        market = spot.check_market(params)
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
        launching.check_profile(backend, params.get("IamInstanceProfile", {}))
        launching.check_zone(backend, params.get("Placement", {}).get("AvailabilityZone"))
        interfaces = [
            {**nic, "DeleteOnTermination": nic.get("DeleteOnTermination", True)}
            for nic in params.get("NetworkInterfaces", [])
        ]
        options = imds.at_launch(params.get("MetadataOptions", {}), image.imds_support)
        imds.check_options(options)
        self.params = {
            **params,
            "NetworkInterfaces": interfaces,
            "ImageId": image.id,
            "BlockDeviceMappings": devices,
            "MetadataOptions": options,
        }
        tags = self._parse_tag_specification()
        imds.check_shown_tags(options, list(tags.get("instance", {})))
        driver = _driver(tags.get("instance", {}).get(Tag.PURPOSE, ""))
        self.error_on_dryrun()
        # moto makes MinCount of them.
        count = launching.launch_count(params, at_work=_at_work(), spot=market is not None)
        self.params["MinCount"] = count
        result: ActionResult = super().run_instances()
        reservation: Any = result.result
        for instance in reservation.instances:
            _complete(instance, reservation, devices, tags.get("network-interface", {}))
            set_state(instance, "pending")
            instance.raw_user_data = wanted.user_data
            instance.disable_api_termination = params.get("DisableApiTermination", False)
            instance.add_tags(marks)
            if not interfaces:
                instance.nics[0].delete_on_termination = True
            if market is not None:
                spot.make_spot(backend, instance, market, tags.get("spot-instances-request", {}))
            backend.boot(instance, wanted, driver)
        _give_profile(backend, reservation.instances[1:], params.get("IamInstanceProfile", {}))
        return result

    def describe_instances(self) -> ActionResult:
        """In pages of reservations, as moto has them, but with tokens and limits of EC2's kind."""
        backend: Any = self.ec2_backend
        ids = list(dict.fromkeys(self.params.get("InstanceIds", [])))
        filters = self._filters_from_querystring()
        self.error_on_dryrun()
        if ids:
            found = backend.get_reservations_by_instance_ids(ids, filters=filters)
        else:
            found = backend.describe_instances(filters=filters)
        part, token = page(found, self.params, ids)
        return ActionResult({"Reservations": part, "NextToken": token})

    def stop_instances(self) -> ActionResult:
        force = bool(self.params.get("Force", False))
        return self._change(
            "StoppingInstances",
            self.ec2_backend.check_stop,
            lambda instance: self.ec2_backend.stop_instance(instance, force=force),
        )

    def start_instances(self) -> ActionResult:
        backend = self.ec2_backend
        begun: set[str] = set()

        def check(instance: Any) -> None:
            backend.check_start(instance)
            if instance.state == "stopped":
                begun.add(instance.id)
                launching.check_limit(_at_work() + len(begun))

        return self._change("StartingInstances", check, backend.start_instance)

    def terminate_instances(self) -> ActionResult:
        backend = self.ec2_backend
        return self._change(
            "TerminatingInstances", backend.check_terminate, backend.terminate_instance
        )

    def reboot_instances(self) -> ActionResult:
        backend = self.ec2_backend
        self._change("", backend.check_reboot, backend.reboot_instance)
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

    def _change(
        self, key: str, check: Callable[[Any], None], change: Callable[[Any], None]
    ) -> ActionResult:
        """All of them, or none: one that can't be changed leaves the others as they were."""
        instances = self._named(self.params.get("InstanceIds", []))
        for instance in instances:
            check(instance)
        self.error_on_dryrun()
        changes = []
        for instance in instances:
            before = {"Code": instance.state_code, "Name": instance.state}
            change(instance)
            after = {"Code": instance.state_code, "Name": instance.state}
            changes.append(
                {"InstanceId": instance.id, "PreviousState": before, "CurrentState": after}
            )
        return ActionResult({key: changes})


def _at_work() -> int:
    """How many instances have, or are about to have, a machine on this host; the lock is held."""
    return sum(
        instance.state not in {"stopped", "terminated"}
        for _, _, backend in ec2_backends.iter_backends()
        for instance in backend.all_instances()
    )


def _driver(purpose: str) -> MachineDriver:
    try:
        return Desk.current.fleet.choose(purpose)
    except HostError as error:
        raise Refusal("UnsupportedOperation", str(error)) from error


def _give_profile(backend: Any, instances: list[Any], profile: dict[str, str]) -> None:
    """moto gives a launch's profile to its first instance only."""
    for instance in instances if profile else []:
        backend.associate_iam_instance_profile(
            instance_id=instance.id,
            iam_instance_profile_name=profile.get("Name"),
            iam_instance_profile_arn=profile.get("Arn"),
        )


def _complete(
    instance: Any, reservation: Any, devices: list[dict[str, Any]], nic_tags: dict[str, str]
) -> None:
    """What moto leaves out of a launch: the interface's tags, and the volumes' speed."""
    instance.reservation_id = reservation.id
    instance.ena_support = True
    instance.end_reason = USER_ASKED
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
