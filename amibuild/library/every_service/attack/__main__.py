"""Makes the attempts.

    python3 -S -s -B -m attack ORDER

test_sandbox.py starts it in a copy of the unit, and once more as root without any sandbox, where
every attempt must get through: one that can't says nothing. ORDER is JSON in base64: `mine`, the
service's folders by name, and `others` (`state`, `config`, `secrets`, `credentials`, `decoy`,
`shared`, `processes`).
Prints JSON: attack -> {"by": what refuses it, "how": attempt -> its error, or "through"}.
"""

import base64
import errno
import json
import sys
from collections.abc import Callable

from .attempts import ATTACKS
from .means import Refused


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except TimeoutError:
        return "silence"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except Refused as refused:
        return str(refused)
    return "through"


def main() -> None:
    order = json.loads(base64.b64decode(sys.argv[1]))
    mine, others = order["mine"], order["others"]
    found = {
        name: {"by": by, "how": {what: outcome(make) for what, make in function(mine, others)}}
        for name, (by, function) in ATTACKS.items()
    }
    json.dump(found, sys.stdout)


main()
