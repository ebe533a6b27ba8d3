"""Tests that mount something do so in a namespace of their own, where the host allows that."""

from __future__ import annotations

from functools import cache

import pytest

from amibuild.errors import HostError
from amibuild.local import private


@cache
def may_mount() -> bool:
    try:
        private.check()
    except HostError:
        return False
    return True


needs_namespaces = pytest.mark.skipif(
    not may_mount(), reason="this host allows no namespaces of our own"
)
