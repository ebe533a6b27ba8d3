"""What a contract test pins, as a row of the table in tests/contract/README.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True, order=True)
class Answer:
    """`when` says what is asked, `ec2` what AWS answers, `source` where that is written.

    `ours` is empty where the endpoint answers the same, else what it does instead.
    """

    call: str
    when: str
    ec2: str
    source: str
    ours: str = ""


def answers(
    call: str, when: str, ec2: str, *, source: str, ours: str = ""
) -> Callable[[Test], Test]:
    """Notes on a test which answer of AWS it pins."""

    def note(test: Test) -> Test:
        kept: list[Answer] = getattr(test, "answers", [])
        test.answers = [*kept, Answer(call, when, ec2, source, ours)]  # type: ignore[attr-defined]
        return test

    return note
