"""Reads the secrets that the steps of a bake ask for, before anything costs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from amibuild.aws.session import Cloud
from amibuild.errors import Denied, NotFound, PlanError
from amibuild.library.step import BuildStep
from amibuild.recipe.model import Recipe, SecretSource
from amibuild.secret import Secret


def read_secrets(
    cloud: Cloud,
    recipe: Recipe,
    steps: Sequence[BuildStep],
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Secret]:
    """By name, those that a step reads.

    Raises: PlanError with all that can't be had, or that stand in a step in clear.
    """
    found: dict[str, Secret] = {}
    problems: list[str] = []
    for name in sorted({name for step in steps for name in step.secrets}):
        try:
            found[name] = Secret(name, _value(cloud, recipe.secrets[name], environ))
        except (ValueError, NotFound, Denied) as error:
            problems.append(f"secrets.{name}: {error}")
    problems += _in_clear(steps, found.values())
    if problems:
        raise PlanError("\n".join(problems))
    return found


def _value(cloud: Cloud, source: SecretSource, environ: Mapping[str, str]) -> str:
    if source.env is not None:
        if source.env not in environ:
            raise ValueError(f"the environment has no {source.env}")
        return environ[source.env]
    if source.ssm is not None:
        value = cloud.ssm.secure_parameter(source.ssm)
        if value is None:
            raise ValueError(f"the parameter {source.ssm} is no SecureString, so all may read it")
        return value
    assert source.secretsmanager is not None
    whole = cloud.secrets_manager.value(source.secretsmanager)
    if whole is None:
        raise ValueError(f"{source.secretsmanager} holds bytes, and a text is needed")
    return whole if source.key is None else _part(whole, source)


def _part(whole: str, source: SecretSource) -> str:
    """Its own errors must not quote what it parsed."""
    try:
        told = json.loads(whole)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise ValueError(f"{source.secretsmanager} is no JSON object, and key asks for one")
    value = told.get(source.key)
    if not isinstance(value, str):
        raise ValueError(f"{source.secretsmanager} has no text under the key {source.key}")
    return value


def _in_clear(steps: Sequence[BuildStep], secrets: Iterable[Secret]) -> Iterator[str]:
    """What would be in the image, the digest and the papers: masking those would hide a leak."""
    for secret in secrets:
        for step in steps:
            places = {
                "run.sh": step.script.encode(),
                **{file.path: file.content for file in (*step.files, *step.checks)},
                **{f"the parameter {key}": v.encode() for key, v in step.environment.items()},
            }
            for place, content in places.items():
                if secret.is_in(content):
                    yield f"secrets.{secret.name}: its value stands in {step.name}: {place}"
