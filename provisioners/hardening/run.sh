#!/usr/bin/env bash
# Each part is a script of its own below files/parts, with its checks in test_PART.py. All that they
# set takes effect at the next boot: this machine's kernel may not even let it be applied.
set -euo pipefail

for part in files/parts/*.sh; do
    echo "part: $(basename "$part" .sh)"
    bash "$part"
done
