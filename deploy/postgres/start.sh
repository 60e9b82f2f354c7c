#!/bin/bash
# Starts one of two PostgreSQL servers; OTHER names the other. If that one is a primary, this one is
# its standby: copied anew if it holds nothing, or was a primary before, which keeps what it held in
# PGDATA.former until the next time. A standby becomes a primary by pg_promote() alone.
set -euo pipefail

export PGPASSFILE=/tmp/pgpass
(
  umask 077
  printf '*:*:*:*:%s\n' "$(sed 's/[\\:]/\\&/g' "$POSTGRES_PASSWORD_FILE")" >"$PGPASSFILE"
)

in_recovery() { # HOST: f for a primary, t for a standby, nothing for a server that is away
  PGCONNECT_TIMEOUT=3 psql -h "$1" -U "$POSTGRES_USER" -d postgres -Atc \
    'SELECT pg_is_in_recovery()' 2>/dev/null || true
}

if [ ! -e "$PGDATA/standby.signal" ] && [ "$(in_recovery "$OTHER")" = f ]; then
  rm -rf "$PGDATA.new"
  pg_basebackup -h "$OTHER" -U "$POSTGRES_USER" -D "$PGDATA.new" -R -X stream -c fast
  if [ -e "$PGDATA" ]; then
    rm -rf "$PGDATA.former"
    mv "$PGDATA" "$PGDATA.former"
  fi
  mv "$PGDATA.new" "$PGDATA"
elif [ ! -s "$PGDATA/PG_VERSION" ] && [ "${FOLLOWS:-no}" = yes ]; then
  echo "$OTHER is no primary yet" >&2
  exit 1 # and begin again
fi
exec docker-entrypoint.sh "$@" -c "hba_file=$(dirname "$0")/pg_hba.conf" -c wal_keep_size=512MB
