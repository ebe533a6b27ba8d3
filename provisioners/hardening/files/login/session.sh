# shellcheck shell=dash
# Read by login shells: a session that nobody uses ends after 15 minutes.
readonly TMOUT=900
export TMOUT
umask 027
# A session of SSM does not go through PAM, where the limit is set for all others.
ulimit -c 0
