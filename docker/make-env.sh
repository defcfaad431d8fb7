#!/bin/sh
# Creates the passwords that the compose files need, once: one file each in docker/secrets (or in
# the given folder). Existing files are kept: the database and Grafana read theirs only when their
# volumes are created. Prints nothing.
#
#   docker/make-env.sh
#
# Only the owner can enter the folder. The files in it are readable by everyone, since the processes
# in the containers run under other user ids.
set -eu
umask 077
folder=${1:-$(cd -- "$(dirname -- "$0")" && pwd)/secrets}
mkdir -p -- "$folder"
chmod 700 -- "$folder"

# Letters and digits: 32 of them carry 190 bits, and need no escape in a URL.
draw() {
  LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | dd bs=1 count=32 2>/dev/null
}

# put NAME VALUE: writes a file atomically, and only if there is none.
put() {
  [ ! -s "$folder/$1" ] || return 0
  printf '%s' "$2" >"$folder/$1.new"
  chmod 444 -- "$folder/$1.new"
  mv -- "$folder/$1.new" "$folder/$1"
}

put postgres_password "$(draw)"
put grafana_password "$(draw)"
url="postgres://tapeline:$(cat -- "$folder/postgres_password")@timescaledb:5432/tapeline"
[ "$(cat -- "$folder/database_url" 2>/dev/null || true)" = "$url" ] || rm -f -- "$folder/database_url"
put database_url "$url"
