"""What a bake wrote down is found again, and never taken for another image's."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.errors import HostError, PlanError, RecipeError
from amibuild.outputs.manifest import Manifest, to_json
from amibuild.project import Project, load_project
from amibuild.record import check_writable, manifest_of, papers_of
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


def project_in(folder: Path, terraform: str) -> Project:
    path = folder / "amibuild.toml"
    path.write_text(
        '[image]\nname = "game-host"\n[provision]\nsteps = []\nservices = []\n'
        f'[terraform]\ndirectory = "{terraform}"\n'
    )
    return load_project(path)


@pytest.mark.parametrize("terraform", ["terraform", "made", "made/not-yet/below", "."])
def test_a_place_that_can_be_written_to_stays_as_it_was(tmp_path: Path, terraform: str) -> None:
    (tmp_path / "made").mkdir()
    check_writable(project_in(tmp_path, terraform))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["amibuild.toml", "made"]


@pytest.mark.parametrize(
    ("terraform", "said"),
    [("/proc/x", "/proc can't be written to"), ("file/x", "file is not a folder")],
)
def test_a_place_that_takes_no_file_is_told_before_a_bake(
    tmp_path: Path, terraform: str, said: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=said):
        check_writable(project_in(tmp_path, terraform))


def test_a_failure_of_the_papers_says_that_the_image_stays() -> None:
    with pytest.raises(PlanError) as failure, papers_of("ami-1"):
        raise PlanError("RUNBOOK.md is broken")
    assert failure.value.__notes__ == ["ami-1 is proven and stays; its papers are not all written"]
