#!/usr/bin/env bash
# Installs one service from what its service.toml compiled to. The service starts with the
# finished image, never here: what it makes on its first start must not be the same everywhere.
#   SERVICE_NAME            its unit, without .service
#   SERVICE_USER            its user and group, and the name of its directories
#   SERVICE_PACKAGES        Debian packages, separated by spaces
#   SERVICE_REPLACED_UNITS  units of those packages that must never run
#   STEAM_APP, STEAM_BRANCH, STEAM_USER  what steamcmd brings, where it does
set -euo pipefail

# Bytes on the root disk, without what apt keeps for itself and the last step removes.
used() {
    local all kept
    all=$(df --output=used --block-size=1 / | tail -n 1)
    # Its sum also stands there when a folder does not, or a file goes meanwhile.
    kept=$({ du --block-size=1 -sc /var/cache/apt /var/lib/apt/lists || true; } | tail -n 1)
    echo $((all - ${kept%%[!0-9]*}))
}
before=$(used)

read -ra packages <<<"$SERVICE_PACKAGES"
read -ra replaced <<<"$SERVICE_REPLACED_UNITS"

# Before the packages come, or their installation would start these.
for unit in "${replaced[@]}"; do
    systemctl mask "$unit"
    systemctl stop "$unit" 2>/dev/null || true
done

if [ "${#packages[@]}" -gt 0 ]; then
    # -cmin: apt gives its lists the server's date as modification time.
    fresh=$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -cmin -360 -print -quit)
    [ -n "$fresh" ] || apt-get -o DPkg::Lock::Timeout=300 update
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install --yes --no-install-recommends "${packages[@]}"
fi

install -D -m 0644 sysusers.conf "/etc/sysusers.d/$SERVICE_USER.conf"
systemd-sysusers "/etc/sysusers.d/$SERVICE_USER.conf"
install -D -m 0644 tmpfiles.conf "/etc/tmpfiles.d/$SERVICE_USER.conf"
systemd-tmpfiles --create "/etc/tmpfiles.d/$SERVICE_USER.conf"

# Readable by the service, writable by root alone.
install -d -m 0750 -o root -g "$SERVICE_USER" "/etc/$SERVICE_USER"
if [ -d config ]; then
    while IFS= read -r -d '' file; do
        target="/etc/$SERVICE_USER/${file#config/}"
        install -d -m 0750 -o root -g "$SERVICE_USER" "$(dirname "$target")"
        install -m 0640 -o root -g "$SERVICE_USER" "$file" "$target"
    done < <(find config -type f -print0)
fi

# Programs that all services share, the same whichever brings them.
install -d -m 0755 /usr/lib/amibuild
install -m 0755 bin/* /usr/lib/amibuild/
install -D -m 0644 facts.json "/etc/amibuild/services/$SERVICE_NAME.json"

# Read by the firewall, CloudWatch's agent and logrotate, where the image has them. The agent's
# part is not in its own folder: it can't join two journals, which the step `logging` does.
# The firewall is told the user's number: a name that is gone would keep all of it from loading.
uid=$(id --user "$SERVICE_USER")
sed "s/SERVICE_UID/$uid/" firewall.nft >firewall-by-number.nft
install -D -m 0644 firewall-by-number.nft "/etc/nftables.d/$SERVICE_USER.nft"
install -D -m 0644 cloudwatch.json "/etc/amibuild/cloudwatch.d/$SERVICE_USER.json"
if [ -f logrotate.conf ]; then
    install -D -m 0644 logrotate.conf "/etc/logrotate.d/$SERVICE_USER"
fi

# Before its unit, whose program may be among them.
if [ -d artifacts ]; then
    bash artifacts/artifacts.sh "/opt/$SERVICE_USER"
fi

# A unit of ours takes the place of a package's only where service.toml says so: `nftables` is a name
# like another, and its unit the firewall's.
for unit in units/*; do
    unit=${unit##*/}
    if [ -e "/usr/lib/systemd/system/$unit" ] && [[ " ${replaced[*]} " != *" $unit "* ]]; then
        echo "$unit is a unit of the system already: give the service another name, or name the" \
            "unit in replaces_units" >&2
        exit 1
    fi
done
install -m 0644 units/* /etc/systemd/system/
systemd-analyze verify --recursive-errors=no "/etc/systemd/system/$SERVICE_NAME.service"
systemctl daemon-reload 2>/dev/null || true # only where systemd runs
systemctl enable "$SERVICE_NAME.service"

# The bake writes it into the manifest; nobody asks when the step was pasted.
printf '{"installed_bytes": %d}\n' $(($(used) - before)) >"${AMIBUILD_RESULT:-/dev/null}"
