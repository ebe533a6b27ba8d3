"""Run Command and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from amibuild.aws.errors import calling
from amibuild.errors import NotFound

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_ssm.type_defs import ParameterHistoryTypeDef, ParameterTypeDef

# A document with its parameters may have 64 KB (botocore service model, SendCommand); the
# document AWS-RunShellScript and the JSON around the script need some of it.
COMMAND_LIMIT_BYTES = 64 * 1024
COMMAND_OVERHEAD_BYTES = 4 * 1024
# GetCommandInvocation returns the first 24,000 characters of stdout (API reference).
STDOUT_LIMIT = 24_000
HOST_MANAGEMENT = "/ssm/managed-instance/default-ec2-instance-management-role"
# GetParameters takes ten names (API reference).
NAMES_AT_ONCE = 10
IMAGE_TYPE = "aws:ec2:image"
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


@dataclass(frozen=True)
class ParameterVersion:
    """One version of a parameter. Only a history says `description` and `user`, who wrote it."""

    name: str
    value: str
    version: int
    modified: datetime
    description: str = ""
    user: str = ""


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

    def parameters_below(self, path: str) -> dict[str, str]:
        """GetParametersByPath, all pages of one level: values by name."""
        with calling("GetParametersByPath", self._region, path):
            pages = self._client.get_paginator("get_parameters_by_path").paginate(Path=path)
            return {p["Name"]: p["Value"] for page in pages for p in page["Parameters"]}

    def create_parameter(self, name: str, value: str) -> None:
        """PutParameter of a new one. Raises: Duplicate, InUse."""
        self._put(name, value, overwrite=False)

    def overwrite_parameter(self, name: str, value: str) -> None:
        """PutParameter, whether it is there or not. Raises: InUse."""
        self._put(name, value, overwrite=True)

    def _put(self, name: str, value: str, *, overwrite: bool) -> None:
        with calling("PutParameter", self._region, name):
            self._client.put_parameter(Name=name, Value=value, Type="String", Overwrite=overwrite)

    def versions(self, names: Sequence[str]) -> dict[str, ParameterVersion]:
        """GetParameters: the current version by name; those that are not there are left out."""
        found: list[ParameterTypeDef] = []
        for first in range(0, len(names), NAMES_AT_ONCE):
            with calling("GetParameters", self._region, names[first]):
                some = list(names[first : first + NAMES_AT_ONCE])
                found += self._client.get_parameters(Names=some)["Parameters"]
        with calling("GetParameters", self._region):
            return {raw["Name"]: _version(raw) for raw in found}

    def history(self, name: str) -> list[ParameterVersion]:
        """GetParameterHistory: all versions that are kept, oldest first. Raises: NotFound."""
        with calling("GetParameterHistory", self._region, name):
            pages = self._client.get_paginator("get_parameter_history").paginate(Name=name)
            found = [_past_version(raw) for page in pages for raw in page["Parameters"]]
        return sorted(found, key=lambda one: one.version)

    def create_image_parameter(
        self, name: str, image_id: str, description: str, tags: Mapping[str, str]
    ) -> None:
        """PutParameter of a new one. It is saved later, once the image is found to be there.

        Raises: Duplicate, InUse.
        """
        with calling("PutParameter", self._region, name):
            self._client.put_parameter(
                Name=name,
                Value=image_id,
                Type="String",
                DataType=IMAGE_TYPE,
                Description=description,
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )

    def overwrite_image_parameter(self, name: str, image_id: str, description: str) -> None:
        """PutParameter of one that is there: saved later, too. Its tags stay. Raises: InUse."""
        with calling("PutParameter", self._region, name):
            self._client.put_parameter(
                Name=name,
                Value=image_id,
                Type="String",
                DataType=IMAGE_TYPE,
                Description=description,
                Overwrite=True,
            )

    def delete_parameters(self, names: Sequence[str]) -> None:
        """DeleteParameters; those that are not there are no error. It takes ten at once."""
        for first in range(0, len(names), 10):
            with calling("DeleteParameters", self._region, names[first]):
                self._client.delete_parameters(Names=names[first : first + 10])

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
                status = raw["Status"]
        except NotFound as error:
            if error.code != "InvocationDoesNotExist":
                raise
            return Invocation("Pending", "Pending", None, "", "")
        code = raw.get("ResponseCode", -1)
        return Invocation(
            status=status,
            details=raw.get("StatusDetails", status),
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
                value = setting["ServiceSetting"].get("SettingValue", "")
        except NotFound:
            return None
        return None if value in {"", "$None"} else value


def _version(raw: ParameterTypeDef) -> ParameterVersion:
    return ParameterVersion(raw["Name"], raw["Value"], raw["Version"], raw["LastModifiedDate"])


def _past_version(raw: ParameterHistoryTypeDef) -> ParameterVersion:
    return ParameterVersion(
        raw["Name"],
        raw["Value"],
        raw["Version"],
        raw["LastModifiedDate"],
        raw.get("Description", ""),
        raw.get("LastModifiedUser", ""),
    )
