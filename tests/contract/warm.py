"""Imported once by the process that bakes are forked from: what each would else do anew."""

from __future__ import annotations

import pytest  # noqa: F401  # what multiprocessing takes for the main program imports it

from amibuild.aws.session import Cloud
from amibuild.names import EndpointAccess
from amibuild.verify.bundle import build_bundle
from tests.contract import builder  # noqa: F401

_nowhere = Cloud(region="us-east-1", access=EndpointAccess("http://127.0.0.1:9", "x", "x"))
_clients = (_nowhere.ec2, _nowhere.ssm)
build_bundle(())
