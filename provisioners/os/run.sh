#!/usr/bin/env bash
# Brings Debian up to date. All that it sets takes effect at the next boot, so it also works where
# this machine's kernel would not let it be applied now.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive
read -ra packages <<<"$PARAM_PACKAGES"
read -ra time_servers <<<"$PARAM_TIME_SERVERS"
read -ra unneeded_units <<<"$PARAM_UNNEEDED_UNITS"

# Its first boot may still hold the package lock. 2 means that it is done, with warnings.
if command -v cloud-init >/dev/null; then
    cloud-init status --wait >/dev/null || [ "$?" -eq 2 ]
fi

install -d -m 0755 /etc/apt/apt.conf.d
cat >/etc/apt/apt.conf.d/80amibuild <<'CONF'
// A lost connection or another apt at work is waited out.
Acquire::Retries "5";
DPkg::Lock::Timeout "300";
Acquire::Languages "none";
CONF

# No service is started or restarted here: the finished image boots with the new ones.
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d

# Our files win over a package's new version of them; a crash here costs only this machine.
apt_get() {
    apt-get --yes -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        -o Dpkg::Options::=--force-unsafe-io "$@"
}

apt_get update
if [ "$PARAM_UPGRADE" = true ]; then
    apt_get full-upgrade
fi
apt_get install --no-install-recommends systemd-timesyncd tzdata unattended-upgrades "${packages[@]}"
apt_get autoremove --purge

# After Debian's own 50unattended-upgrades, whose list it clears.
install -m 0644 files/unattended-upgrades.conf /etc/apt/apt.conf.d/60amibuild-security
for timer in apt-daily apt-daily-upgrade; do
    install -D -m 0644 "files/$timer.timer.conf" "/etc/systemd/system/$timer.timer.d/amibuild.conf"
    systemctl enable "$timer.timer"
done
install -D -m 0644 files/upgrade-guard.conf \
    /etc/systemd/system/apt-daily-upgrade.service.d/amibuild.conf
systemctl disable unattended-upgrades.service

install -d -m 0755 /etc/systemd/timesyncd.conf.d
cat >/etc/systemd/timesyncd.conf.d/amibuild.conf <<CONF
[Time]
NTP=${time_servers[*]}
CONF
systemctl enable systemd-timesyncd.service

if [ ! -f "/usr/share/zoneinfo/$PARAM_TIMEZONE" ]; then
    echo "there is no time zone $PARAM_TIMEZONE" >&2
    exit 1
fi
ln -sfn "/usr/share/zoneinfo/$PARAM_TIMEZONE" /etc/localtime
echo "$PARAM_TIMEZONE" >/etc/timezone

case $PARAM_LOCALE in
    C | C.UTF-8 | POSIX) ;; # in libc itself
    *)
        apt_get install --no-install-recommends locales
        grep -qE "^#? ?$PARAM_LOCALE( |$)" /etc/locale.gen || {
            echo "there is no locale $PARAM_LOCALE" >&2
            exit 1
        }
        sed -i -E "s/^# ?($PARAM_LOCALE( |$))/\1/" /etc/locale.gen
        locale-gen
        ;;
esac
echo "LANG=$PARAM_LOCALE" >/etc/locale.conf
# Debian's own programs look here; Debian 13 makes it a link to the file above.
if [ ! /etc/default/locale -ef /etc/locale.conf ]; then
    echo "LANG=$PARAM_LOCALE" >/etc/default/locale
fi

install -D -m 0644 files/cloud-init.cfg /etc/cloud/cloud.cfg.d/99_amibuild.cfg

install -D -m 0644 files/wait-online.conf \
    /etc/systemd/system/systemd-networkd-wait-online.service.d/amibuild.conf
# Debian's triggers have brought both up to date already: else the first boot does it again.
touch /etc/.updated /var/.updated
# A timer whose service vanishes counts as failed until the next boot, so all of them end first. Which
# of them the machine has does not matter.
systemctl stop "${unneeded_units[@]}" 2>/dev/null || true
for unit in "${unneeded_units[@]}"; do
    systemctl mask "$unit"
done
