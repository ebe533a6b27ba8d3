"""Run Command and parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from amibuild.aws.errors import calling
from amibuild.errors import NotFound

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

# A document with its parameters may have 64 KB (botocore service model, SendCommand); the
# document AWS-RunShellScript and the JSON around the script need some of it.
COMMAND_LIMIT_BYTES = 64 * 1024
COMMAND_OVERHEAD_BYTES = 4 * 1024
# GetCommandInvocation returns the first 24,000 characters of stdout (API reference).
STDOUT_LIMIT = 24_000
HOST_MANAGEMENT = "/ssm/managed-instance/default-ec2-instance-management-role"
ENDED = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})


@dataclass(frozen=True)
class Invocation:
    """`exit_code` is None until the script ended by itself."""

    status: str
    details: str
    exit_code: int | None
    stdout: str
    stderr: str

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Ssm:
    def __init__(self, client: SSMClient, region: str) -> None:
        self._client = client
        self._region = region

    def parameter(self, name: str) -> str:
        """GetParameter. Raises: NotFound."""
        with calling("GetParameter", self._region, name):
            return self._client.get_parameter(Name=name)["Parameter"]["Value"]

    def secure_parameter(self, name: str) -> str | None:
        """GetParameter, decrypted; None for one that is not a SecureString. Raises: NotFound."""
        with calling("GetParameter", self._region, name):
            found = self._client.get_parameter(Name=name, WithDecryption=True)["Parameter"]
        return found["Value"] if found["Type"] == "SecureString" else None

    def ping(self, instance_id: str) -> str:
        """DescribeInstanceInformation: Online, ConnectionLost, or `not registered`."""
        with calling("DescribeInstanceInformation", self._region, instance_id):
            found = self._client.describe_instance_information(
                Filters=[{"Key": "InstanceIds", "Values": [instance_id]}]
            )["InstanceInformationList"]
        return found[0]["PingStatus"] if found else "not registered"

    def send(self, instance_id: str, script: str, *, comment: str, timeout_s: int) -> str:
        """SendCommand with AWS-RunShellScript; the command's id.

        `timeout_s` is for the run (5 to 172,800 s); delivery has a minute of its own.
        """
        with calling("SendCommand", self._region, instance_id):
            return self._client.send_command(
                InstanceIds=[instance_id],
                DocumentName="AWS-RunShellScript",
                Comment=comment[:100],
                TimeoutSeconds=60,
                Parameters={"commands": [script], "executionTimeout": [str(timeout_s)]},
            )["Command"]["CommandId"]

    def invocation(self, command_id: str, instance_id: str) -> Invocation:
        """GetCommandInvocation; Pending in the moments before SSM knows its own command."""
        try:
            with calling("GetCommandInvocation", self._region, command_id):
                raw = self._client.get_command_invocation(
                    CommandId=command_id, InstanceId=instance_id
                )
        except NotFound as error:
            if error.code != "InvocationDoesNotExist":
                raise
            return Invocation("Pending", "Pending", None, "", "")
        code = raw.get("ResponseCode", -1)
        return Invocation(
            status=raw["Status"],
            details=raw.get("StatusDetails", raw["Status"]),
            exit_code=code if code >= 0 else None,
            stdout=raw.get("StandardOutputContent", ""),
            stderr=raw.get("StandardErrorContent", ""),
        )

    def cancel(self, command_id: str, instance_id: str) -> None:
        """CancelCommand: best effort, says AWS."""
        with calling("CancelCommand", self._region, command_id):
            self._client.cancel_command(CommandId=command_id, InstanceIds=[instance_id])

    def host_management_role(self) -> str | None:
        """The role of Default Host Management in this region, None when it is off.

        Source: GetServiceSetting; the value is `$None` until an administrator sets a role.
        """
        try:
            with calling("GetServiceSetting", self._region, HOST_MANAGEMENT):
                setting = self._client.get_service_setting(SettingId=HOST_MANAGEMENT)
        except NotFound:
            return None
        value = setting["ServiceSetting"].get("SettingValue", "")
        return None if value in {"", "$None"} else value
