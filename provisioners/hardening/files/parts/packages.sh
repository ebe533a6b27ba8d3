#!/usr/bin/env bash
# reason: What is not there has no holes: clients that send passwords in the clear, servers nobody asked for.
# controls: CIS 1.5.6, 2.1.2-2.1.20, 2.2.1-2.2.6; Lynis INSE-8310, PKGS-7346; ANSSI R58, R62
# proven: fresh boot
set -euo pipefail

read -ra unneeded <<<"$PARAM_UNNEEDED_PACKAGES"
# Those that are here, or whose settings are: apt does not know all names.
mapfile -t there < <(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' |
    sed -n -E 's/ (installed|config-files)$/ \1/p' |
    awk 'NR == FNR { unneeded[$1]; next } $2 == "config-files" || $1 in unneeded { print $1 }' \
        <(printf '%s\n' "${unneeded[@]}") -)
if [ "${#there[@]}" -gt 0 ]; then
    also=$(apt-get --simulate purge "${there[@]}" | awk '/^Purg/ {print $2}' |
        grep -vxF "$(printf '%s\n' "${there[@]}")" | paste -s -d ' ' || true)
    [ -z "$also" ] || echo "purged too, for each needs an unneeded package: $also" >>"${AMIBUILD_RESULT:-/dev/null}"
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 purge --yes "${there[@]}"
fi
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 autoremove --purge --yes
