"""Parameter Store, kept over runs: one set of names per region, the public ones in all of them.

Sources: SSM API reference, PutParameter; User Guide, "Using native parameter support for Amazon
Machine Image IDs": a parameter of data type aws:ec2:image is validated after the answer is sent,
and is not saved when there is no such image.
"""

from __future__ import annotations

import re
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.ssm.exceptions import ValidationException
from moto.ssm.models import Parameter, SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse

from amibuild.local.overlay.desk import Desk
from amibuild.local.store import ParameterRecord, ParameterVersion

IMAGE_TYPE = "aws:ec2:image"
_IMAGE = re.compile(r"ami-(?:[0-9a-f]{8}|[0-9a-f]{17})")


class ParameterBooks(SimpleSystemManagerBackend):
    def load_parameter(self, record: ParameterRecord) -> None:
        """Puts a parameter of the store into the books, unless it is another region's."""
        region, colon, name = record.name.partition(":")
        if not colon:
            name = record.name  # public: the same everywhere
        elif region != self.region_name:
            return
        versions = (*record.history, record)
        key = self._parameters.normalize_name(name)
        self._parameters[key] = [_parameter(self.account_id, name, v) for v in versions]
        if record.tags:
            self._resource_tags["Parameter"][name].update(record.tags)

    def put_parameter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        parameter = super().put_parameter(name, *args, **kwargs)
        if parameter.data_type == IMAGE_TYPE and not self._is_image(parameter.value):
            versions = self._parameters[name]
            versions.remove(parameter)
            if not versions:
                del self._parameters[self._parameters.normalize_name(name)]
            return parameter
        self._keep(name)
        return parameter

    def delete_parameter(self, name: str) -> None:
        super().delete_parameter(name)
        self._forget(name)

    def delete_parameters(self, names: list[str]) -> list[str]:
        gone: list[str] = super().delete_parameters(names)
        for name in gone:
            self._forget(name)
        return gone

    def label_parameter_version(self, name: str, *args: Any, **kwargs: Any) -> Any:
        result = super().label_parameter_version(name, *args, **kwargs)
        self._keep(name)
        return result

    def unlabel_parameter_version(self, name: str, *args: Any, **kwargs: Any) -> Any:
        result = super().unlabel_parameter_version(name, *args, **kwargs)
        self._keep(name)
        return result

    def add_tags_to_resource(
        self, resource_type: str, resource_id: str, tags: dict[str, str]
    ) -> None:
        super().add_tags_to_resource(resource_type, resource_id, tags)
        if resource_type == "Parameter":
            self._keep(resource_id)

    def remove_tags_from_resource(
        self, resource_type: str, resource_id: str, keys: list[str]
    ) -> None:
        super().remove_tags_from_resource(resource_type, resource_id, keys)
        if resource_type == "Parameter":
            self._keep(resource_id)

    def _is_image(self, image_id: str) -> bool:
        return image_id in ec2_backends[self.account_id][self.region_name].amis

    def _keep(self, name: str) -> None:
        parameter = self.get_parameter(name)
        if parameter is None:
            return
        versions = [_version(p) for p in self._parameters[parameter.name]]
        tags = dict(self._resource_tags["Parameter"].get(parameter.name, {}))
        record = ParameterRecord(
            name=f"{self.region_name}:{parameter.name}",
            tags=tags,
            history=tuple(versions[:-1]),
            **versions[-1].model_dump(),
        )
        Desk.current.store.put_parameter(record)

    def _forget(self, name: str) -> None:
        Desk.current.store.delete_parameter(f"{self.region_name}:{name}")


class ParameterResponses(SimpleSystemManagerResponse):
    def put_parameter(self) -> ActionResult:
        """moto makes the data type `text` when an overwrite leaves it out."""
        before = self.ssm_backend.get_parameter(self._get_param("Name"))
        kind = self._get_param("DataType") or (before.data_type if before else "text")
        name, value = self._get_param("Name"), self._get_param("Value")
        reserved = name.startswith("/aws/")  # which moto refuses, whatever the value is
        if kind == IMAGE_TYPE and not reserved and not _IMAGE.fullmatch(value):
            raise ValidationException(f"The parameter value '{value}' is not a valid AMI ID")
        parameter = self.ssm_backend.put_parameter(
            name,
            self._get_param("Description"),
            value,
            self._get_param("Type"),
            self._get_param("AllowedPattern"),
            self._get_param("KeyId"),
            self._get_param("Overwrite", False),
            self._get_param("Tags"),
            kind,
            tier=self._get_param("Tier"),
            policies=self._get_param("Policies"),
        )
        return ActionResult({"Version": parameter.version, "Tier": parameter.tier})


def _parameter(account: str, name: str, version: ParameterVersion) -> Any:
    return Parameter(
        account_id=account,
        name=name,
        value=version.value,
        parameter_type=version.type,
        description=version.description,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=version.last_modified,
        version=version.version,
        data_type=version.data_type,
        labels=list(version.labels),
        tier="Standard",
    )


def _version(parameter: Any) -> ParameterVersion:
    return ParameterVersion(
        value=parameter.decrypt(parameter.value),
        version=parameter.version,
        type=parameter.parameter_type,
        data_type=parameter.data_type,
        description=parameter.description,
        last_modified=parameter.last_modified_date,
        labels=tuple(parameter.labels),
    )
