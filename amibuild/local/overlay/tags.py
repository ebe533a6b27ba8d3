"""Tags: those of images and snapshots outlive the process, and nothing gets tags that is not."""

from __future__ import annotations

from moto.ec2.models import EC2Backend

from amibuild.local.overlay.desk import Refusal


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
        for id_ in resource_ids:
            if id_ in self.amis:
                self.keep_image(self.amis[id_])
            if id_ in self.snapshots:
                self.keep_snapshot(self.snapshots[id_])

    def _tags_of(self, id_: str) -> dict[str, str]:
        return dict(self.tags.get(id_, {}))
