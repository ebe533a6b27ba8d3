"""What all tables of a recipe have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the recipe. Nothing in it can be changed, and a key that it lacks is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)
