#!/usr/bin/env bash
# reason: A password can be guessed from anywhere; nobody has one here, root included.
# controls: CIS 5.4.2.4, 5.4.2.7, 5.4.2.8, 7.2.2; Lynis AUTH-9283; ANSSI R30, R33, R34
# proven: fresh boot
set -euo pipefail

# Two characters that are no hash: neither a password nor an unlocking gives one back.
while IFS=: read -r name hash _; do
    if [ -z "$hash" ] || [ -n "${hash//[*!]/}" ] || [ "$name" = root ]; then
        usermod --password '!*' "$name"
    fi
done </etc/shadow

# What belongs to the system and is not a person gets no shell; root has one for SSM's commands.
while IFS=: read -r name _ uid _ _ _ shell; do
    if [ "$uid" -gt 0 ] && [ "$uid" -lt 1000 ] && [[ $shell != */nologin && $shell != */false ]] &&
        [[ " $PARAM_SHELL_ACCOUNTS " != *" $name "* ]]; then
        usermod --shell /usr/sbin/nologin "$name"
    fi
done </etc/passwd
