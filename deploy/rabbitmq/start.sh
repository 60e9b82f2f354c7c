#!/bin/sh
# Starts RabbitMQ with the password of its first user, and as a node of a cluster, whose nodes know one
# another by a secret.
set -eu

cookie=/var/lib/rabbitmq/.erlang.cookie
if [ -e /run/secrets/rabbitmq_erlang_cookie ]; then
  rm -f "$cookie"
  (umask 277 && cat /run/secrets/rabbitmq_erlang_cookie >"$cookie")
fi
RABBITMQ_DEFAULT_PASS=$(cat /run/secrets/rabbitmq_password) exec rabbitmq-server
