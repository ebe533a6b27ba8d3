"""What a bake wrote down is found again, and never taken for another image's."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.errors import RecipeError
from amibuild.outputs.manifest import Manifest, to_json
from amibuild.record import manifest_of
from tests.unit.samples import manifest

OURS = manifest()
NAME = OURS.image.name
THEIRS = manifest(image_id="ami-0aaaaaaaaaaaaaaaa")


def written(state_dir: Path, name: str, one: Manifest) -> None:
    (state_dir / "manifests").mkdir(exist_ok=True)
    (state_dir / "manifests" / name).write_text(to_json(one))


def test_a_manifest_is_found_by_its_image(tmp_path: Path) -> None:
    assert manifest_of(tmp_path, NAME, OURS.image.id) is None
    written(tmp_path, f"{NAME}.json", OURS)
    assert manifest_of(tmp_path, NAME, OURS.image.id) == OURS


def test_that_of_another_targets_image_of_the_name_is_not_taken_for_it(tmp_path: Path) -> None:
    written(tmp_path, f"{NAME}.json", THEIRS)
    assert manifest_of(tmp_path, NAME, OURS.image.id) is None


def test_one_that_had_to_give_way_is_found(tmp_path: Path) -> None:
    written(tmp_path, f"{NAME}.json", THEIRS)
    written(tmp_path, f"{NAME}-before-{THEIRS.image.id}.json", OURS)
    assert manifest_of(tmp_path, NAME, OURS.image.id) == OURS


@pytest.mark.parametrize("content", [b"{", b"\xff", b"{}"])
def test_one_that_is_broken_is_told_by_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / f"{NAME}.json").write_bytes(content)
    with pytest.raises(RecipeError, match=rf"{NAME}\.json: "):
        manifest_of(tmp_path, NAME, OURS.image.id)
