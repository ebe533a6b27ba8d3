"""Reads the secrets that the steps of a bake ask for, before anything costs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from amibuild.aws.session import Cloud
from amibuild.errors import AwsError, Denied, NotFound, PlanError
from amibuild.library.step import BuildStep
from amibuild.recipe.model import Recipe, SecretSource
from amibuild.secret import Secret


def read_secrets(
    cloud: Cloud,
    recipe: Recipe,
    steps: Sequence[BuildStep],
    environ: Mapping[str, str],
) -> dict[str, Secret]:
    """By name, those that a step reads.

    Raises: PlanError with all that can't be had, or that stand in a step in clear. It does not
    repeat what the recipe says of them: somebody may have written the value itself there.
    """
    found: dict[str, Secret] = {}
    problems: list[str] = []
    for name in sorted({name for step in steps for name in step.secrets}):
        try:
            found[name] = Secret(name, _value(cloud, recipe.secrets[name], environ))
        except NotFound as error:
            problems.append(f"secrets.{name}: there is none of that name ({error.code})")
        except Denied as error:
            problems.append(f"secrets.{name}: it may not be read ({error.code}); {error.hint}")
        except AwsError as error:
            # A hint is made of a code, a region and the name of an action.
            hint = f"; {error.hint}" if error.hint else ""
            problems.append(f"secrets.{name}: it could not be read ({error.code}){hint}")
        except ValueError as error:
            problems.append(f"secrets.{name}: {error}")
    problems += _in_clear(recipe, steps, found.values())
    if problems:
        raise PlanError("\n".join(problems))
    return found


def _value(cloud: Cloud, source: SecretSource, environ: Mapping[str, str]) -> str:
    if source.env is not None:
        if source.env not in environ:
            raise ValueError("the environment has no such variable")
        return environ[source.env]
    if source.ssm is not None:
        value = cloud.ssm.secure_parameter(source.ssm)
        if value is None:
            raise ValueError("the parameter is no SecureString, so it is not encrypted")
        return value
    assert source.secretsmanager is not None
    whole = cloud.secrets_manager.value(source.secretsmanager)
    if whole is None:
        raise ValueError("the secret holds bytes, and a text is needed")
    return whole if source.key is None else _part(whole, source.key)


def _part(whole: str, key: str) -> str:
    """Its own errors must not quote what it parsed."""
    try:
        told = json.loads(whole)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise ValueError("the secret is no JSON object, and key asks for one")
    value = told.get(key)
    if not isinstance(value, str):
        raise ValueError("the secret has no text under that key")
    return value


def _in_clear(
    recipe: Recipe, steps: Sequence[BuildStep], secrets: Iterable[Secret]
) -> Iterator[str]:
    """What would be in the image, the digest and the papers: masking those would hide a leak."""
    places = {"the recipe": recipe.model_dump_json().encode()}
    for step in steps:
        places |= {
            f"{step.name}: run.sh": step.script.encode(),
            f"{step.name}: its purpose": step.purpose.encode(),
            f"{step.name}: what is told of it": json.dumps(step.facts, default=str).encode(),
        }
        for file in (*step.files, *step.checks):
            places[f"{step.name}: {file.path}"] = file.content
        for name, text in step.environment.items():
            places[f"{step.name}: the parameter {name}"] = text.encode()
        for source in step.sources:
            places[f"{step.name}: the address of {source.name}"] = source.url.encode()
    for secret in secrets:
        for place, content in places.items():
            if secret.is_in(content):
                yield f"secrets.{secret.name}: its value stands in {place}"
