#!/bin/sh
# Starts Redis with its users, whose passwords come from files. With NODES, the names of all nodes, it
# is the one named NODE: the primary if it is that now, else its replica.
set -eu

quoted() { # FILE-OF-PASSWORD
  sed 's/[\\"]/\\&/g' "/run/secrets/$1"
}

config="user default on \">$(quoted redis_password)\" ~* &* +@all -@admin -@dangerous +info +config|get"
if [ -n "${NODES:-}" ]; then
  replication=$(quoted redis_replication_password)
  primary=$(sh "$(dirname "$0")/primary.sh")
  config="$config
user replication on \">$replication\" ~* &* +@all
masteruser replication
masterauth \"$replication\"
replica-announce-ip $NODE
repl-backlog-size 64mb
repl-diskless-sync-delay 0"
  [ "$primary" = "$NODE" ] || config="$config
replicaof $primary 6379"
fi
# Durable before it answers; only entries with a TTL, which are persisted ones, are evicted.
# The configuration comes on standard input, since arguments are in every list of processes.
exec redis-server - \
  --appendonly yes --appendfsync always --no-appendfsync-on-rewrite no --save "" \
  --maxmemory 512mb --maxmemory-policy volatile-ttl <<END_OF_CONFIG
$config
END_OF_CONFIG
