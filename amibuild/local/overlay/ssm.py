"""Systems Manager: managed machines, Run Command, and the one service setting a bake looks at.

Source: SSM API reference, per operation, as botocore 1.44 has it. SendCommand's limit: its error
MaxDocumentSizeExceeded says 64 KB, and the document's parameters count.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import ec2_backends
from moto.ssm.exceptions import SSMException
from moto.ssm.models import SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse

from amibuild.local.overlay.commands import (
    ENDED,
    PLUGIN,
    STDERR_LIMIT,
    STDOUT_LIMIT,
    Command,
    Invocation,
    run_invocation,
)
from amibuild.local.overlay.desk import Desk
from amibuild.local.overlay.paging import ssm_page

DOCUMENT = "AWS-RunShellScript"
DOCUMENT_PARAMETERS = {"commands", "workingDirectory", "executionTimeout"}
# The document's own pattern, as boto/boto3 #2558 has it; less than 5 s is the agent's matter.
_EXECUTION = re.compile(
    r"([1-9][0-9]{0,4})|(1[0-6][0-9]{4})|(17[0-1][0-9]{3})|(172[0-7][0-9]{2})|(172800)"
)
COMMAND_LIMIT_BYTES = 64 * 1024
DELIVERY_DEFAULT_S = 3600
MOST_IDS = 50
DELIVERY_RANGE_S = range(30, 2_592_001)
HOST_MANAGEMENT = "/ssm/managed-instance/default-ec2-instance-management-role"
HOST_MANAGEMENT_ROLE = "service-role/AWSSystemsManagerDefaultEC2InstanceManagementRole"


class CommandBooks(SimpleSystemManagerBackend):
    """`commands` by id, oldest first."""

    def machines(self) -> dict[str, dict[str, Any]]:
        """Every instance that has registered and is not terminated, as DescribeInstance… has it."""
        found = {}
        ec2 = ec2_backends[self.account_id][self.region_name]
        for instance in ec2.all_instances():
            life = Desk.current.fleet.life(instance.id)
            if life is None or instance.state == "terminated":
                self.registered.pop(instance.id, None)
                continue
            online = life.ready_since is not None
            if online:
                self.registered.setdefault(instance.id, life.ready_since)
            if instance.id in self.registered:
                found[instance.id] = self._facts(instance, online)
        return found

    def _facts(self, instance: Any, online: bool) -> dict[str, Any]:
        return {
            "InstanceId": instance.id,
            "PingStatus": "Online" if online else "ConnectionLost",
            "LastPingDateTime": self.registered[instance.id],
            "RegistrationDate": self.registered[instance.id],
            "AgentVersion": "3.3.0.0",
            "IsLatestVersion": True,
            "PlatformType": "Linux",
            "PlatformName": "Debian GNU/Linux",
            "PlatformVersion": "13",
            "ResourceType": "EC2Instance",
            "IPAddress": instance.nics[0].private_ip_address,
            "ComputerName": instance.private_dns_name,
        }

    def command(self, command_id: str) -> Command:
        command: Command | None = self.commands.get(command_id)
        if command is None:
            raise SSMException("InvalidCommandId", "")
        return command

    def begin(self, command: Command) -> None:
        self.commands[command.id] = command
        for invocation in command.invocations.values():
            Desk.current.spawn(run_invocation, command, invocation)


class CommandResponses(SimpleSystemManagerResponse):
    def describe_instance_information(self) -> ActionResult:
        asked = {f["Key"]: f["Values"] for f in self._get_param("Filters", [])}
        for old in self._get_param("InstanceInformationFilterList", []):
            asked[old["key"]] = old["valueSet"]
        kinds = {"InstanceIds": "InstanceId", "PingStatus": "PingStatus"} | {
            "PlatformTypes": "PlatformType",
            "ResourceType": "ResourceType",
        }
        unknown = set(asked) - set(kinds)
        if unknown:
            raise SSMException("InvalidInstanceInformationFilterValue", f"{unknown.pop()}")
        machines = [
            m
            for m in self.ssm_backend.machines().values()
            if all(m[kinds[key]] in values for key, values in asked.items())
        ]
        part, token = self._part(machines, range(5, 51))
        return ActionResult({"InstanceInformationList": part, "NextToken": token})

    def _part(self, found: list[Any], allowed: range) -> tuple[list[Any], str | None]:
        return ssm_page(found, self._get_param("MaxResults"), self._get_param("NextToken"), allowed)

    def send_command(self) -> ActionResult:
        document = self._get_param("DocumentName")
        name = document.rpartition("/")[2]
        parameters: dict[str, list[str]] = self._get_param("Parameters", {})
        if name != DOCUMENT:
            raise SSMException("InvalidDocument", f"Document {document} does not exist.")
        if not parameters.get("commands") or set(parameters) - DOCUMENT_PARAMETERS:
            raise SSMException("InvalidParameters", "")
        if not all(map(_EXECUTION.fullmatch, parameters.get("executionTimeout", []))):
            raise SSMException("InvalidParameters", "")
        if len(json.dumps(parameters)) > COMMAND_LIMIT_BYTES:
            raise SSMException("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")
        timeout_s = self._get_int_param("TimeoutSeconds", DELIVERY_DEFAULT_S)
        if timeout_s not in DELIVERY_RANGE_S:
            raise SSMException(
                "ValidationException",
                f"1 validation error detected: Value '{timeout_s}' at 'timeoutSeconds' failed to "
                "satisfy constraint: Member must have value between 30 and 2592000",
            )
        targets = self._get_param("Targets", [])
        command = Command(
            document=document,
            comment=self._get_param("Comment", ""),
            parameters=parameters,
            timeout_s=timeout_s,
            invocations={id_: Invocation(id_) for id_ in self._targeted(targets)},
            targets=targets,
        )
        answer = _command(command)
        self.ssm_backend.begin(command)
        return ActionResult({"Command": answer})

    def _targeted(self, targets: list[dict[str, Any]]) -> list[str]:
        ids: list[str] = self._get_param("InstanceIds", [])
        if len(ids) > MOST_IDS:
            raise SSMException(
                "ValidationException",
                f"1 validation error detected: Value at 'instanceIds' failed to satisfy "
                f"constraint: Member must have length less than or equal to {MOST_IDS}",
            )
        machines = self.ssm_backend.machines()
        if len(set(ids)) != len(ids):
            raise SSMException("DuplicateInstanceId", "")
        if any(id_ not in machines for id_ in ids):
            raise SSMException("InvalidInstanceId", "Instances not in a valid state for account")
        if not ids and not targets:
            raise SSMException("ValidationException", "InstanceIds or Targets must be given")
        for target in targets:
            if target["Key"] == "InstanceIds":
                found = set(target["Values"])
            else:
                ec2 = ec2_backends[self.ssm_backend.account_id][self.region]
                reservations = ec2.all_reservations({target["Key"]: target["Values"]})
                found = {i.id for r in reservations for i in r.instances}
            machines = {id_: m for id_, m in machines.items() if id_ in found}
        return ids or list(machines)

    def get_command_invocation(self) -> ActionResult:
        command = self.ssm_backend.command(self._get_param("CommandId"))
        invocation = command.invocations.get(self._get_param("InstanceId"))
        plugin = self._get_param("PluginName")
        if invocation is None or plugin not in {None, PLUGIN}:
            raise SSMException("InvocationDoesNotExist", "")
        ended = invocation.status in ENDED
        return ActionResult(
            {
                "CommandId": command.id,
                "InstanceId": invocation.instance_id,
                "Comment": command.comment,
                "DocumentName": command.document,
                "DocumentVersion": "$DEFAULT",
                "PluginName": PLUGIN,
                "ResponseCode": invocation.exit_code,
                "ExecutionStartDateTime": _text(invocation.started),
                "ExecutionElapsedTime": invocation.elapsed,
                "ExecutionEndDateTime": _text(invocation.ended),
                "Status": invocation.status,
                "StatusDetails": invocation.details,
                "StandardOutputContent": invocation.stdout[:STDOUT_LIMIT] if ended else "",
                "StandardOutputUrl": "",
                "StandardErrorContent": invocation.stderr[:STDERR_LIMIT] if ended else "",
                "StandardErrorUrl": "",
            }
        )

    def list_commands(self) -> ActionResult:
        part, token = self._part(self._asked_for(), range(1, 51))
        return ActionResult({"Commands": [_command(c) for c in part], "NextToken": token})

    def list_command_invocations(self) -> ActionResult:
        instance_id, details = self._get_param("InstanceId"), self._get_param("Details", False)
        found = [
            _listed(command, invocation, bool(details))
            for command in self._asked_for()
            for invocation in command.invocations.values()
            if instance_id in {None, invocation.instance_id}
        ]
        part, token = self._part(found, range(1, 51))
        return ActionResult({"CommandInvocations": part, "NextToken": token})

    def _asked_for(self) -> list[Command]:
        """Newest first, as SSM lists them."""
        command_id, instance_id = self._get_param("CommandId"), self._get_param("InstanceId")
        if command_id:
            return [self.ssm_backend.command(command_id)]
        newest = reversed(self.ssm_backend.commands.values())
        return [c for c in newest if not instance_id or instance_id in c.invocations]

    def cancel_command(self) -> ActionResult:
        command = self.ssm_backend.command(self._get_param("CommandId"))
        ids = self._get_param("InstanceIds", []) or list(command.invocations)
        if any(id_ not in command.invocations for id_ in ids):
            raise SSMException("InvalidInstanceId", "")
        for id_ in ids:
            invocation = command.invocations[id_]
            if invocation.status not in ENDED:
                invocation.status = invocation.details = "Cancelling"
                invocation.cancel.set()
        return EmptyResult()

    def get_service_setting(self) -> ActionResult:
        """Default Host Management is on: every machine here registers without a profile."""
        setting = self._get_param("SettingId")
        if not setting.endswith(HOST_MANAGEMENT):
            raise SSMException(
                "ServiceSettingNotFound", f"Setting {setting} is not known to the local endpoint"
            )
        backend = self.ssm_backend
        return ActionResult(
            {
                "ServiceSetting": {
                    "SettingId": HOST_MANAGEMENT,
                    "SettingValue": HOST_MANAGEMENT_ROLE,
                    "Status": "Customized",
                    "ARN": f"arn:aws:ssm:{self.region}:{backend.account_id}:servicesetting"
                    f"{HOST_MANAGEMENT}",
                }
            }
        )


def _text(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" if moment else ""


def _command(command: Command) -> dict[str, Any]:
    statuses = [i.status for i in command.invocations.values()]
    return {
        "CommandId": command.id,
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": "$DEFAULT",
        "ExpiresAfter": command.expires,
        "InstanceIds": [] if command.targets else list(command.invocations),
        "Targets": command.targets,
        "Parameters": command.parameters,
        "RequestedDateTime": command.requested,
        "Status": command.status,
        "StatusDetails": command.status,
        "MaxConcurrency": "50",
        "MaxErrors": "0",
        "TargetCount": len(statuses),
        "CompletedCount": sum(s in ENDED for s in statuses),
        "ErrorCount": sum(s in {"Failed", "TimedOut"} for s in statuses),
        "DeliveryTimedOutCount": sum(
            i.details == "DeliveryTimedOut" for i in command.invocations.values()
        ),
        "TimeoutSeconds": command.timeout_s,
    }


def _listed(command: Command, invocation: Invocation, details: bool) -> dict[str, Any]:
    ended = invocation.status in ENDED
    plugin = {
        "Name": PLUGIN,
        "Status": invocation.status,
        "StatusDetails": invocation.details,
        "ResponseCode": invocation.exit_code,
        "ResponseStartDateTime": invocation.started,
        "ResponseFinishDateTime": invocation.ended,
        "Output": invocation.listed_output if ended else "",
    }
    return {
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": "$DEFAULT",
        "RequestedDateTime": command.requested,
        "Status": invocation.status,
        "StatusDetails": invocation.details,
        "CommandPlugins": [plugin] if details else [],
    }
