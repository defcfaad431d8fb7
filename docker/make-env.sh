#!/bin/sh
# Draws the passwords that the compose files need, once: one file each in docker/secrets (or in the folder given).
# What is there already is kept: the database and Grafana take theirs when their volumes are made. Nothing is printed.
#
#   docker/make-env.sh
#
# The folder is for its owner alone. The files in it can be read by everybody, since the processes in the containers run
# under user ids of their own; nobody else gets through the folder to them.
set -eu
umask 077
folder=${1:-$(cd -- "$(dirname -- "$0")" && pwd)/secrets}
mkdir -p -- "$folder"
chmod 700 -- "$folder"

# Letters and digits: 32 of them are 190 bits, and need no escape in a URL.
draw() {
  LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | dd bs=1 count=32 2>/dev/null
}

# put NAME VALUE: whole or not at all, and only where there is none.
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
