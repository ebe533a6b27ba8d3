"""A signal ends what goes on, at the first line that can bear it, and once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from amibuild import signals
from amibuild.errors import Interrupted


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    with signals.catch():
        yield


def test_one_that_came_in_an_undo_in_mid_work_ends_the_work_behind_it() -> None:
    with signals.hold(deliver=False):
        signal.raise_signal(signal.SIGINT)
    assert signals.arrived()
    with pytest.raises(Interrupted, match="SIGINT"):
        signals.deliver_now()
    signals.deliver_now()  # once


def test_so_does_the_next_hold_and_the_next_signal() -> None:
    with signals.hold(deliver=False):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), signals.hold():
        pass


def test_a_second_signal_ends_what_the_first_could_not() -> None:
    with signals.hold(deliver=False):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted, match="SIGINT"):
        signal.raise_signal(signal.SIGTERM)


def test_while_it_unwinds_others_are_not_heard() -> None:
    with pytest.raises(Interrupted), signals.hold():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    with signals.hold():
        signal.raise_signal(signal.SIGINT)
