"""What holds for every request: well-formed ids, tags within limits, client tokens, dry runs.

Sources: EC2 API reference, "Error codes" and "Ensuring idempotency" (a repeated request succeeds
without a further effect, and tells the state as it is now; other parameters with the same token are
an IdempotentParameterMismatch; a token has at most 64 characters).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores
from moto.ec2.responses import EC2Response
from moto.ssm.responses import SimpleSystemManagerResponse

from amibuild.local.overlay import imds, launching
from amibuild.local.overlay.desk import Desk, Locked, Refusal
from amibuild.local.overlay.tags import check_specifications, check_tags
from amibuild.local.overlay.unseen import EC2_SHELVES, SSM_SHELVES, unseen

TOKEN_LIMIT = 64
# A request's member -> how its ids look, and the code for one that does not. Those of images and
# snapshots are checked where they are used.
_IDS = {
    "InstanceId": ("i", "InvalidInstanceID.Malformed"),
    "InstanceIds": ("i", "InvalidInstanceID.Malformed"),
    "VolumeId": ("vol", "InvalidVolumeID.Malformed"),
    "VolumeIds": ("vol", "InvalidVolumeID.Malformed"),
    "GroupId": ("sg", "InvalidGroupId.Malformed"),
    "GroupIds": ("sg", "InvalidGroupId.Malformed"),
    "SecurityGroupIds": ("sg", "InvalidGroupId.Malformed"),
    "NetworkInterfaceId": ("eni", "InvalidNetworkInterfaceId.Malformed"),
    "NetworkInterfaceIds": ("eni", "InvalidNetworkInterfaceId.Malformed"),
}


class EveryRequest(Locked, EC2Response):
    params: dict[str, Any]

    # moto writes `pending` over the state of whatever a launch answers; ours is pending by itself,
    # and a repeated launch tells the state of now.
    RESPONSE_KEY_PATH_TO_TRANSFORMER: ClassVar[dict[str, Callable[[Any], Any]]] = {
        key: change
        for key, change in EC2Response.RESPONSE_KEY_PATH_TO_TRANSFORMER.items()
        if key != "RunInstances.Reservation.Instances.Instance.State"
    }

    def call_action(self) -> object:
        operation = self._get_action()
        name = camelcase_to_underscores(operation)
        method = getattr(self, name, None)
        if callable(method):
            # moto calls the method by its name, and turns what it raises into an answer.
            setattr(self, name, lambda: self._guarded(operation, method))
        with Desk.current.lock:
            return super().call_action()

    def _guarded(self, operation: str, method: Callable[[], ActionResult]) -> ActionResult:
        check_ids(self.params)
        check_specifications(operation, self.params)
        if operation == "CreateTags":
            self._check_new_tags(self.params.get("Tags", []))
        if not method.__func__.__module__.startswith("amibuild."):  # type: ignore[attr-defined]
            # Most of moto's operations know no dry run, and would do it.
            self.error_on_dryrun()
        with unseen(EC2_SHELVES, self.ec2_backend, operation, self.params):
            return self._once(operation, method)

    def _check_new_tags(self, tags: list[dict[str, str]]) -> None:
        check_tags(tags)
        for id_ in self.params.get("Resources", []):
            instance = self.ec2_backend.get_instance_by_id(id_)
            if instance is not None:
                shown = instance.metadata_options.instance_metadata_tags
                imds.check_shown_tags({"InstanceMetadataTags": shown}, [t["Key"] for t in tags])

    def _once(self, operation: str, method: Callable[[], ActionResult]) -> ActionResult:
        token = self.params.get("ClientToken")
        if not token:
            return method()
        if len(token) > TOKEN_LIMIT:
            raise Refusal(
                "InvalidParameterValue",
                f"Invalid value '{token}' for clientToken. It must be at most {TOKEN_LIMIT} "
                "characters long.",
            )
        done, mark = self.ec2_backend.done, launching.fingerprint(self.params)
        if (operation, token) in done:
            before, answer = done[operation, token]
            if before != mark:
                raise launching.mismatch()
            again: ActionResult = answer
            return again
        answer = method()
        done[operation, token] = (mark, answer)
        return answer


def check_ids(params: dict[str, Any]) -> None:
    for member, id_ in _named(params):
        prefix, code = _IDS[member]
        if not re.fullmatch(rf"{prefix}-(?:[0-9a-f]{{8}}|[0-9a-f]{{17}})", id_):
            raise Refusal(code, f'Invalid id: "{id_}" (expecting "{prefix}-...")')


def _named(params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for member in _IDS.keys() & params.keys():
        value = params[member]
        for id_ in value if isinstance(value, list) else [value]:
            yield member, id_


class EverySsmRequest(Locked, SimpleSystemManagerResponse):
    def call_action(self) -> object:
        body = json.loads(self.body or "{}")
        with (
            Desk.current.lock,
            unseen(SSM_SHELVES, self.ssm_backend, self._get_action(), body),
        ):
            return super().call_action()
