# shellcheck shell=sh
# Read by login shells: a session that nobody uses ends after 15 minutes.
readonly TMOUT=900
export TMOUT
umask 027
