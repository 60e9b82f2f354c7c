#!/bin/sh
# Prints which of NODES is the primary: as SENTINELS have it, else the node that says so of itself,
# else the first.
set -eu

for sentinel in $SENTINELS; do
  primary=$(timeout 2 redis-cli -h "$sentinel" -p 26379 sentinel get-master-addr-by-name polyglot \
    2>/dev/null | head -n 1)
  for node in $NODES; do
    if [ "$primary" = "$node" ]; then
      echo "$node"
      exit
    fi
  done
done
REDISCLI_AUTH=$(cat /run/secrets/redis_replication_password)
export REDISCLI_AUTH
for node in $NODES; do
  if timeout 2 redis-cli -h "$node" --user replication info replication 2>/dev/null |
    grep -q '^role:master'; then
    echo "$node"
    exit
  fi
done
echo "${NODES%% *}"
