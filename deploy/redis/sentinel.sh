#!/bin/sh
# Starts the sentinel named NODE. What it learns is in memory: the next start learns it again. Without
# a password it answers questions alone; the user `replication` may do everything.
set -eu

replication=$(sed 's/[\\"]/\\&/g' /run/secrets/redis_replication_password)
umask 077
cat >/tmp/sentinel.conf <<END_OF_CONFIG
port 26379
dir /tmp
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $NODE
sentinel monitor polyglot $(sh "$(dirname "$0")/primary.sh") 6379 2
sentinel auth-user polyglot replication
sentinel auth-pass polyglot "$replication"
sentinel down-after-milliseconds polyglot 5000
sentinel failover-timeout polyglot 30000
user default on nopass ~* &* -@all +@connection +@pubsub +info +role +sentinel|get-master-addr-by-name +sentinel|masters +sentinel|master +sentinel|sentinels +sentinel|replicas +sentinel|is-master-down-by-addr +sentinel|ckquorum
user replication on ">$replication" ~* &* +@all
END_OF_CONFIG
exec redis-server /tmp/sentinel.conf --sentinel
