"""provisioners/ on disk + Recipe -> Library -> the steps of a bake, in their order.

A folder beside the recipe takes the place of the bundled one of the same name. Every mistake in
what the recipe uses is reported at once, in the recipe's own lines where it is the recipe's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from amibuild.errors import Problem, RecipeError
from amibuild.library.collisions import collisions
from amibuild.library.compile import compile_service
from amibuild.library.folder import Read, read_provisioner, read_service
from amibuild.library.provisioner import Provisioner, compile_provisioner
from amibuild.library.service import Service
from amibuild.library.step import BuildStep, StepFile
from amibuild.recipe.document import Document, did_you_mean
from amibuild.recipe.load import load_recipe, read_recipe_document
from amibuild.recipe.locate import KeyPath
from amibuild.recipe.model import Recipe

T = TypeVar("T")

SERVICES = "services"
AGENT = "ssm-agent"
HYGIENE = tuple(
    f"{name}.py" for name in ("hygiene", "blocks", "fingerprints", "material", "paths", "reading")
)
SEAL = "seal"
# amibuild puts these around every recipe's steps itself.
FIRST = (AGENT,)
LAST = (SEAL,)


@dataclass(frozen=True)
class Library:
    """The provisioners and services that a recipe uses, by name."""

    provisioners: Mapping[str, Provisioner]
    services: Mapping[str, Service]


def bundled_provisioners() -> Path:
    """Inside the package when it is installed; beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "provisioners"
    return installed if installed.is_dir() else package.parent / "provisioners"


def hygiene_rules() -> tuple[StepFile, ...]:
    """The program, in its parts, that looks for what must not be in an image, on the finished disk.

    Always the bundled one: a recipe that seals in its own way is held to the same rules.
    """
    folder = bundled_provisioners() / SEAL
    return tuple(StepFile(name, (folder / name).read_bytes()) for name in HYGIENE)


def load_project_parts(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, Library]:
    """A recipe and what it uses.

    Raises: RecipeError with every mistake in both, so far as a wrong recipe can be followed.
    """
    try:
        recipe = load_recipe(path, overrides)
    except RecipeError as error:
        raise RecipeError([*error.problems, *_problems_beyond(path, overrides)]) from None
    return recipe, load_library(path.parent, recipe)


def _problems_beyond(path: Path, overrides: Sequence[str]) -> tuple[Problem, ...]:
    """What is wrong with the steps that a recipe names which is itself wrong elsewhere."""
    try:
        document, _ = read_recipe_document(path, overrides)
        named = {"image": {"name": "unnamed"}, "provision": document.values.get("provision", {})}
        recipe, _ = Document(document.origin, named).check(Recipe)
        if recipe is not None:
            load_library(path.parent, Recipe.read_from(document.origin, recipe))
    except RecipeError as error:
        # Where secrets come from is left out here, and so would be missing.
        return tuple(one for one in error.problems if not one.key.startswith("secrets."))
    return ()


def service_folders(recipe_dir: Path) -> dict[str, Path]:
    """All services that a recipe there could name."""
    return _folders(
        [root / SERVICES for root in (recipe_dir / "provisioners", bundled_provisioners())]
    )


def load_library(recipe_dir: Path, recipe: Recipe) -> Library:
    """Raises: RecipeError with every mistake in what the recipe uses."""
    roots = (recipe_dir / "provisioners", bundled_provisioners())
    provisioner_folders = _folders(roots)
    known_services = service_folders(recipe_dir)
    provisioner_folders.pop(SERVICES, None)
    provision = recipe.provision
    problems: list[Problem] = []

    problems += _unknown_names(recipe, "steps", "provisioner", provisioner_folders, provision.steps)
    problems += _unknown_names(recipe, "services", "service", known_services, provision.services)
    problems += _misplaced_names(recipe, provisioner_folders)
    used = [*FIRST, *(s for s in provision.steps if s not in (*FIRST, *LAST)), *LAST]
    provisioners, found = _read_all(used, provisioner_folders, read_provisioner)
    problems += found
    services, found = _read_all(
        provision.services, known_services, lambda folder: read_service(folder, known_services)
    )
    problems += found

    problems += _order_problems(recipe, provisioners, provisioner_folders, known_services)
    problems += _parameter_problems(recipe, provisioners, used, provisioner_folders)
    problems += _secret_problems(recipe, provisioners)
    problems += collisions(recipe, services)
    if problems:
        raise RecipeError(problems)
    return Library(provisioners, services)


def build_steps(recipe: Recipe, library: Library) -> tuple[BuildStep, ...]:
    """ssm-agent, the recipe's steps, its services, seal."""
    provision = recipe.provision
    image = recipe.image.name

    def provisioner(name: str) -> BuildStep:
        given = provision.params.get(name, {})
        return compile_provisioner(library.provisioners[name], given, image)

    return (
        *map(provisioner, (*FIRST, *provision.steps)),
        *(compile_service(library.services[name], image) for name in provision.services),
        *map(provisioner, LAST),
    )


def _folders(roots: Iterable[Path]) -> dict[str, Path]:
    """Name -> folder; an earlier root wins."""
    found: dict[str, Path] = {}
    for root in roots:
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if folder.is_dir() and not folder.name.startswith((".", "_")):
                    found.setdefault(folder.name, folder)
    return found


def _read_all(
    names: Iterable[str],
    folders: Mapping[str, Path],
    read: Callable[[Path], Read[T]],
) -> tuple[dict[str, T], list[Problem]]:
    found: dict[str, T] = {}
    problems: list[Problem] = []
    for name in names:
        if name in folders:
            result = read(folders[name])
            problems += result.problems
            if result.value is not None:
                found[name] = result.value
    return found, problems


def _unknown_names(
    recipe: Recipe, key: str, what: str, known: Mapping[str, Path], names: tuple[str, ...]
) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name not in known:
            suggestion = did_you_mean(name, known) or f"there are {', '.join(sorted(known))}"
            at: KeyPath = ("provision", key, index)
            yield recipe.origin.problem(at, f"there is no {what} called {name}", suggestion)


def _misplaced_names(recipe: Recipe, provisioners: Mapping[str, Path]) -> Iterator[Problem]:
    steps, services = recipe.provision.steps, recipe.provision.services
    for index, name in enumerate(steps):
        if name in (*FIRST, *LAST):
            at: KeyPath = ("provision", "steps", index)
            where = "first" if name in FIRST else "last"
            problem = f"{name} is added {where} by amibuild itself"
            yield recipe.origin.problem(at, problem, "leave it out")
    for index, name in enumerate(services):
        if name in steps or name in (*FIRST, *LAST):
            at = ("provision", "services", index)
            yield recipe.origin.problem(at, f"a step is called {name} too")


def _order_problems(
    recipe: Recipe,
    provisioners: Mapping[str, Provisioner],
    folders: Mapping[str, Path],
    service_folders: Mapping[str, Path],
) -> Iterator[Problem]:
    """A step stands after those that it needs, or it would run on a machine that lacks them."""
    steps = recipe.provision.steps
    for index, name in enumerate(steps):
        provisioner = provisioners.get(name)
        for needed in provisioner.after if provisioner else ():
            at: KeyPath = ("provision", "steps", index)
            if needed in (*FIRST, *steps[:index]):
                continue
            if needed not in folders:
                suggestion = did_you_mean(needed, folders)
                problem = f"{name} needs {needed} before it, which does not exist"
                yield recipe.origin.problem(at, problem, suggestion)
            elif needed == name or (
                needed in provisioners and name in _all_needed(needed, provisioners)
            ):
                problem = f"{name} and {needed} each need the other before them"
                yield recipe.origin.problem(at, problem)
            elif needed in steps:
                problem = f"{name} needs {needed} before it"
                yield recipe.origin.problem(at, problem, f"move {needed} up")
            else:
                problem = f"{name} needs {needed} before it"
                yield recipe.origin.problem(at, problem, f'add "{needed}" to provision.steps')


def _all_needed(name: str, provisioners: Mapping[str, Provisioner]) -> set[str]:
    """All that a step needs, and what those need."""
    needed: set[str] = set()
    waiting = [name]
    while waiting:
        provisioner = provisioners.get(waiting.pop())
        for one in provisioner.after if provisioner else ():
            if one not in needed:
                needed.add(one)
                waiting.append(one)
    return needed


def _secret_problems(recipe: Recipe, provisioners: Mapping[str, Provisioner]) -> Iterator[Problem]:
    readers = {name: step for step, one in provisioners.items() for name in one.secrets}
    for name, step in readers.items():
        if name not in recipe.secrets:
            close = did_you_mean(name, recipe.secrets)
            suggestion = close or f'say where it comes from: {name} = {{ env = "{name.upper()}" }}'
            yield recipe.origin.problem(
                ("secrets", name), f"is missing: {step} reads it", suggestion
            )
    for name in recipe.secrets:
        if name not in readers:
            problem = "is read by no step of this recipe"
            yield recipe.origin.problem(("secrets", name), problem, did_you_mean(name, readers))


def _parameter_problems(
    recipe: Recipe,
    provisioners: Mapping[str, Provisioner],
    used: list[str],
    known: Mapping[str, Path],
) -> Iterator[Problem]:
    params = recipe.provision.params
    for step, values in params.items():
        table: KeyPath = ("provision", "params", step)
        if step not in used:
            problem = f"{step} is not a step of this recipe"
            meant = [name for name in used if name in known]
            yield recipe.origin.problem(table, problem, did_you_mean(step, meant))
            continue
        provisioner = provisioners.get(step)
        if provisioner is None:  # its own file is wrong, which is reported already
            continue
        for name, value in values.items():
            parameter = provisioner.parameters.get(name)
            if parameter is None:
                suggestion = did_you_mean(name, provisioner.parameters)
                problem = f"{step} has no parameter {name}"
                yield recipe.origin.problem((*table, name), problem, suggestion)
            elif refused := parameter.refuse(value):
                yield recipe.origin.problem((*table, name), *refused)
    for step, provisioner in provisioners.items():
        for name, parameter in provisioner.parameters.items():
            if parameter.default is None and name not in params.get(step, {}):
                at: KeyPath = ("provision", "params", step, name)
                yield recipe.origin.problem(at, f"is missing: {parameter.description}")
