#!/bin/bash
# Makes, once, the certificate by which the nodes of a cluster know one another, and in the same file
# the authority that they trust.
set -euo pipefail
file=/usr/share/elasticsearch/data/transport.p12
[ ! -s "$file" ] || exit 0
elasticsearch-certutil ca --silent --pass "" --out /tmp/authority.p12
elasticsearch-certutil cert --silent --pass "" --ca /tmp/authority.p12 --ca-pass "" --out "$file.new"
mv "$file.new" "$file"
