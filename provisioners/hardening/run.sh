#!/usr/bin/env bash
# Each part is a script of its own below files/parts, with its checks in test_PART.py; what it is
# for stands in its head. All that they set takes effect at the next boot: this machine's kernel may
# not even let it be applied.
set -euo pipefail

# One call for the packages of all: apt takes longer to begin than to install one.
mapfile -t packages < <(sed -n 's/^# packages: //p' files/parts/*.sh | tr ' ' '\n' | sort --unique)
bash files/install.sh "${packages[@]}"

for part in files/parts/*.sh; do
    echo "part: $(basename "$part" .sh)"
    bash "$part"
done
