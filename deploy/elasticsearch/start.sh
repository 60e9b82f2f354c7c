#!/bin/bash
# Starts Elasticsearch as the image does, with users and passwords out of files. What is written is
# below ES_PATH_CONF, in memory, and made anew at each start, so that a restart takes new passwords.
set -euo pipefail

add_user() { # NAME ROLES FILE-OF-PASSWORD
  local password
  password=$(<"$3")
  # On standard input, since arguments are in every list of processes.
  printf '%s\n%s\n' "$password" "$password" | elasticsearch-users useradd "$1" -r "$2" >/dev/null
}

rm -rf "$ES_PATH_CONF"
cp -r config "$ES_PATH_CONF"
cp "$(dirname "$0")/roles.yml" "$ES_PATH_CONF/roles.yml"
[ ! -e /certificates/transport.p12 ] || cp /certificates/transport.p12 "$ES_PATH_CONF"
add_user polyglot polyglot,kibana_admin /run/secrets/elasticsearch_password
add_user kibana_server kibana_system /run/secrets/kibana_password
exec docker-entrypoint.sh eswrapper
