"""One recipe with all that it names: the first thing that every flow needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from amibuild import proc
from amibuild.errors import HostError
from amibuild.library.load import build_steps, load_project_parts
from amibuild.library.step import BuildStep
from amibuild.recipe.model import Recipe


@dataclass(frozen=True)
class Project:
    """`directory` holds the recipe; `state_dir` journals, manifests and logs. `overrides` are those
    of `--set`, which `recipe` has already."""

    recipe: Recipe
    path: Path
    steps: tuple[BuildStep, ...]
    overrides: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        return self.path.parent

    @property
    def state_dir(self) -> Path:
        return self.directory / ".amibuild"

    @property
    def lease(self) -> timedelta:
        """Longer than a bake of this recipe can take: after it, what is left is nobody's."""
        builder, verify = self.recipe.builder, self.recipe.verify
        waits_s = (
            2 * builder.launch_timeout_s
            + builder.connect_timeout_s
            + builder.shutdown_timeout_s
            + builder.capture_timeout_s
            + 3 * verify.timeout_s
            # Two first boots, two waits for a volume, and the look at every block.
            + 4 * 600
            + 60 * builder.volume_gib
            + sum(step.timeout_s for step in self.steps)
        )
        return timedelta(hours=1, seconds=waits_s)


def load_project(path: Path, overrides: Sequence[str] = ()) -> Project:
    """Raises: RecipeError with everything that is wrong."""
    path = path.absolute()
    recipe, library = load_project_parts(path, overrides)
    return Project(recipe, path, build_steps(recipe, library), tuple(overrides))


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
