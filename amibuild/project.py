"""One recipe with all that it names: the first thing that every flow needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amibuild import proc
from amibuild.errors import HostError
from amibuild.library.load import build_steps, load_project_parts
from amibuild.library.step import BuildStep
from amibuild.recipe.model import Recipe


@dataclass(frozen=True)
class Project:
    """`directory` holds the recipe; `state_dir` journals, manifests and logs."""

    recipe: Recipe
    path: Path
    steps: tuple[BuildStep, ...]

    @property
    def directory(self) -> Path:
        return self.path.parent

    @property
    def state_dir(self) -> Path:
        return self.directory / ".amibuild"


def load_project(path: Path, overrides: Sequence[str] = ()) -> Project:
    """Raises: RecipeError with everything that is wrong."""
    path = path.absolute()
    recipe, library = load_project_parts(path, overrides)
    return Project(recipe, path, build_steps(recipe, library))


def commit_of(directory: Path) -> str:
    """The git commit of the recipe, with `-dirty` where files differ; empty outside a checkout."""
    try:
        found = proc.run(
            ["git", "-C", directory, "describe", "--always", "--dirty", "--abbrev=40"],
            check=False,
            timeout_s=10,
        )
    except HostError:
        return ""
    return found.text.strip() if found.exit_code == 0 else ""
