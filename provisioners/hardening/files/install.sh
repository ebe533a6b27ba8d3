#!/usr/bin/env bash
# install.sh PACKAGE...: installs what lacks. What a package starts by itself is not started here:
# its configuration comes after it, and it belongs to the finished image.
set -euo pipefail

missing=()
for package in "$@"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

# -cmin: apt gives its lists the server's date as modification time.
fresh=$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -cmin -360 -print -quit)
[ -n "$fresh" ] || apt-get -o DPkg::Lock::Timeout=300 update
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
    install --yes --no-install-recommends "${missing[@]}"
