"""Tags: those of images and snapshots outlive the process, and nothing gets tags that is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moto.ec2.models import EC2Backend

from amibuild.local.overlay.desk import Desk, Refusal


class TagBooks(EC2Backend):
    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        super().create_tags(resource_ids, tags)
        self._keep_tags(resource_ids)
        return True

    def delete_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        super().delete_tags(resource_ids, tags)
        self._keep_tags(resource_ids)
        return True

    def do_resources_exist(self, resource_ids: list[str]) -> bool:
        """moto looks up an instance and never asks whether it found one."""
        for id_ in resource_ids:
            if id_.startswith("i-") and self.get_instance_by_id(id_) is None:
                raise Refusal(
                    "InvalidInstanceID.NotFound", f"The instance ID '{id_}' does not exist"
                )
        return bool(super().do_resources_exist(resource_ids))

    def _keep_tags(self, resource_ids: list[str]) -> None:
        store = Desk.current.store
        for id_ in resource_ids:
            for image in _named(self.amis, id_):
                if image.record is not None:
                    image.record = image.record.model_copy(update={"tags": self._tags_of(id_)})
                    store.put_image(image.record)
            for snapshot in _named(self.snapshots, id_):
                if snapshot.record is not None:
                    snapshot.record = snapshot.record.model_copy(
                        update={"tags": self._tags_of(id_)}
                    )
                    store.put_snapshot(snapshot.record)

    def _tags_of(self, id_: str) -> dict[str, str]:
        return dict(self.tags.get(id_, {}))


def _named(found: dict[str, Any], id_: str) -> Iterator[Any]:
    if id_ in found:
        yield found[id_]
