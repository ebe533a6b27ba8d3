#!/usr/bin/env bash
# Installs the program that decides, its settings, and the timer that asks it each minute. The timer
# starts with the finished image, never here.
set -euo pipefail

# -cmin: apt gives its lists the server's date as modification time.
fresh=$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -cmin -360 -print -quit)
[ -n "$fresh" ] || apt-get -o DPkg::Lock::Timeout=300 update
# nft counts packets of UDP's peers, ss those of TCP's.
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
    install --yes --no-install-recommends iproute2 nftables python3

install -d -m 0755 /usr/lib/amibuild/idle_stop
install -m 0644 files/idle_stop/*.py /usr/lib/amibuild/idle_stop/
install -m 0755 files/idle-stop /usr/lib/amibuild/

mapfile -t maintenance <<<"$PARAM_MAINTENANCE"
install -d -m 0755 /etc/amibuild
{
    echo "# Read at each look. What each key means: /usr/lib/amibuild/idle-stop --help"
    echo "minutes = $PARAM_MINUTES"
    echo "dry_run = $PARAM_DRY_RUN"
    echo "maintenance = ["
    for window in "${maintenance[@]}"; do
        [ -z "$window" ] || printf "    '%s',\n" "$window"
    done
    echo "]"
} >/etc/amibuild/idle-stop.toml
chmod 0644 /etc/amibuild/idle-stop.toml
# A window that can't be read would else be found out on the first night.
/usr/lib/amibuild/idle-stop --check

install -m 0644 files/tmpfiles.conf /etc/tmpfiles.d/idle-stop.conf
install -m 0644 files/idle-stop.service files/idle-stop.timer /etc/systemd/system/
systemd-analyze verify --recursive-errors=no /etc/systemd/system/idle-stop.timer
systemctl daemon-reload 2>/dev/null || true # only where systemd runs
systemctl enable idle-stop.timer
