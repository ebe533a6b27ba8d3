"""Parameter Store, kept over runs: one set of names per region, the public ones in all of them.

Sources: SSM API reference, PutParameter (names, sizes by tier, types) and LabelParameterVersion;
User Guide, "Using native parameter support for Amazon Machine Image IDs": a parameter of data type
aws:ec2:image is validated after the answer is sent, and is not saved when there is no such image.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.ssm.exceptions import SSMException, ValidationException
from moto.ssm.models import Parameter, SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse

from amibuild.local.overlay.desk import Desk
from amibuild.local.overlay.paging import ssm_page
from amibuild.local.records import VERSIONS_KEPT
from amibuild.local.store import ParameterRecord, ParameterVersion

log = logging.getLogger(__name__)

IMAGE_TYPE = "aws:ec2:image"
STANDARD, ADVANCED, INTELLIGENT = "Standard", "Advanced", "Intelligent-Tiering"
# Bytes of a value, by tier; characters of a name; levels of a hierarchy (PutParameter).
SIZES = {STANDARD: 4096, ADVANCED: 8192}
LONGEST_NAME = 1011
MOST_LEVELS = 15
_NAME = re.compile(r"[A-Za-z0-9_.\-/]+")
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
        self._keep(name)
        return parameter

    def put_when_valid(self, image_id: str, put: Callable[[], Any]) -> None:
        """Puts a parameter of data type aws:ec2:image, once its image is found to be there.

        Runs in a thread of its own: who asked has had their answer, and must look whether the new
        version appears.
        """
        desk = Desk.current
        desk.closing.wait(desk.validation_s)
        with desk.lock:
            image = ec2_backends[self.account_id][self.region_name].amis.get(image_id)
            if image is None or image.state != "available":
                log.info("a parameter was not saved: %s is no available image", image_id)
                return
            try:
                put()
            except SSMException as error:  # somebody else was there first
                log.info("a parameter was not saved: %s", error)

    def delete_parameter(self, name: str) -> None:
        _check_own(name)
        super().delete_parameter(name)
        self._forget(name)

    def delete_parameters(self, names: list[str]) -> list[str]:
        for name in names:
            _check_own(name)
        gone: list[str] = super().delete_parameters(names)
        for name in gone:
            self._forget(name)
        return gone

    def label_parameter_version(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._must_be(name)
        result = super().label_parameter_version(name, *args, **kwargs)
        self._keep(name)
        return result

    def unlabel_parameter_version(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._must_be(name)
        result = super().unlabel_parameter_version(name, *args, **kwargs)
        self._keep(name)
        return result

    def _must_be(self, name: str) -> None:
        """moto makes an empty parameter of a name that it looks for, and fails over it later."""
        if name not in self._parameters:
            raise SSMException("ParameterNotFound", f"Parameter {name} not found.")

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
        backend: Any = self.ssm_backend
        asked = json.loads(self.body)
        name, value = asked["Name"], asked["Value"]
        check_name(name)
        before = backend.get_parameter(name) if name in backend._parameters else None
        tier = check_value(asked, before)
        kind = asked.get("DataType") or (before.data_type if before else "text")
        # Which moto refuses, whatever the value is.
        reserved = _is_reserved(name)
        if kind == IMAGE_TYPE and not reserved:
            _check_image(value, asked.get("Type") or (before.parameter_type if before else None))

        def put() -> Any:
            return backend.put_parameter(
                name,
                asked.get("Description"),
                value,
                asked.get("Type"),
                asked.get("AllowedPattern"),
                asked.get("KeyId"),
                asked.get("Overwrite", False),
                asked.get("Tags"),
                kind,
                tier=tier,
                policies=None,
            )

        if not reserved:
            _check_what_moto_would(asked, before)
        if kind != IMAGE_TYPE or reserved:
            parameter = put()
            return ActionResult({"Version": parameter.version, "Tier": parameter.tier})
        if before is not None and len(backend._parameters[name]) >= VERSIONS_KEPT:
            backend._check_for_parameter_version_limit_exception(name)
        Desk.current.spawn(backend.put_when_valid, value, put)
        return ActionResult({"Version": before.version + 1 if before else 1, "Tier": tier})

    def describe_parameters(self) -> ActionResult:
        """moto's pages are ten long, whatever is asked for."""
        found = self.ssm_backend.describe_parameters(
            self._get_param("Filters"), self._get_param("ParameterFilters")
        )
        part, token = ssm_page(
            found, self._get_param("MaxResults"), self._get_param("NextToken"), range(1, 51), 10
        )
        told = [parameter.describe_response_object(False) for parameter in part]
        return ActionResult({"Parameters": told, "NextToken": token})


def check_name(name: str) -> None:
    """Raises: SSMException. What begins with /aws is moto's to refuse."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValidationException(
            "Parameter name: can't be longer than 1011 characters, and consists of letters, "
            "numbers and the symbols .-_, with / between the levels of a hierarchy."
        )
    if "/" in name and not name.startswith("/"):
        raise ValidationException("Parameter name must be a fully qualified name.")
    if name.count("/") > MOST_LEVELS:
        raise SSMException(
            "HierarchyLevelLimitExceededException",
            f"A hierarchy can have a maximum of {MOST_LEVELS} levels.",
        )


def check_value(asked: dict[str, Any], before: Any) -> str:
    """The tier that the value gets. Raises: SSMException."""
    if asked.get("Policies"):
        raise SSMException(
            "UnsupportedOperation", "PutParameter with Policies: the local endpoint has none"
        )
    size = len(asked["Value"].encode())
    tier = asked.get("Tier") or (before.tier if before else STANDARD)
    if tier not in {STANDARD, ADVANCED, INTELLIGENT}:
        raise ValidationException(
            f"1 validation error detected: Value '{tier}' at 'tier' failed to satisfy constraint: "
            "Member must satisfy enum value set: [Standard, Advanced, Intelligent-Tiering]"
        )
    if before is not None and before.tier == ADVANCED and tier == STANDARD:
        raise ValidationException(
            "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from "
            "the advanced-parameter tier to the standard-parameter tier."
        )
    if tier == INTELLIGENT:
        tier = ADVANCED if size > SIZES[STANDARD] else STANDARD
    if size > SIZES[tier]:
        more = (
            " To create a larger parameter value, upgrade the parameter to use the "
            "advanced-parameter tier."
        )
        raise ValidationException(
            f"{tier} tier parameters support a maximum parameter value of {SIZES[tier]} characters."
            f"{more if tier == STANDARD else ''}"
        )
    other = before is not None and asked.get("Type") not in {None, before.parameter_type}
    if other and asked.get("Overwrite"):
        raise SSMException(
            "HierarchyTypeMismatchException",
            "Parameter Store doesn't support changing a parameter type in a hierarchy.",
        )
    _check_pattern(asked, before)
    return str(tier)


def _check_pattern(asked: dict[str, Any], before: Any) -> None:
    pattern = asked.get("AllowedPattern") or (before.allowed_pattern if before else None)
    if not pattern:
        return
    try:
        fits = re.fullmatch(pattern, asked["Value"])
    except re.error as error:
        raise SSMException(
            "InvalidAllowedPatternException", f"The allowed pattern {pattern} is not valid: {error}"
        ) from error
    if not fits:
        raise SSMException(
            "ParameterPatternMismatchException",
            f"Parameter value, cannot be validated against allowedPattern: {pattern}",
        )


def _is_reserved(name: str) -> bool:
    return name.lower().lstrip("/").startswith(("aws", "ssm"))


def _check_own(name: str) -> None:
    """Systems Manager User Guide, "About requirements and constraints for parameter names"."""
    if _is_reserved(name):
        raise SSMException(
            "AccessDeniedException", f"No access to reserved parameter name: {name}."
        )


def _check_image(value: str, type_: str | None) -> None:
    if not _IMAGE.fullmatch(value):
        raise ValidationException(f"The parameter value '{value}' is not a valid AMI ID")
    if type_ not in {None, "String"}:
        raise ValidationException(f"The data type {IMAGE_TYPE} is for parameters of type String.")


def _check_what_moto_would(asked: dict[str, Any], before: Any) -> None:
    """What moto asks when it puts the parameter: after the answer, or not where it overwrites."""
    if asked.get("Overwrite") and asked.get("Tags"):
        raise ValidationException(
            "Invalid request: tags and overwrite can't be used together. To create a parameter "
            "with tags, please remove overwrite flag. To update tags for an existing parameter, "
            "please use AddTagsToResource or RemoveTagsFromResource."
        )
    if before is None and not asked.get("Type"):
        raise ValidationException("A parameter type is required when you create a parameter.")
    if before is not None and not asked.get("Overwrite"):
        raise SSMException(
            "ParameterAlreadyExists",
            "The parameter already exists. To overwrite this value, set the overwrite option in "
            "the request to true.",
        )


def _parameter(account: str, name: str, version: ParameterVersion) -> Any:
    return Parameter(
        account_id=account,
        name=name,
        value=version.value,
        parameter_type=version.type,
        description=version.description,
        allowed_pattern=version.allowed_pattern,
        keyid=None,
        last_modified_date=version.last_modified,
        version=version.version,
        data_type=version.data_type,
        labels=list(version.labels),
        tier=version.tier,
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
        tier=parameter.tier,
        allowed_pattern=parameter.allowed_pattern,
    )
