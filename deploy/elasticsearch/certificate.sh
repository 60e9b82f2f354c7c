#!/bin/bash
# Makes, once, the certificate by which the nodes of a cluster know one another.
set -euo pipefail
cd /usr/share/elasticsearch
[ -s data/transport.p12 ] ||
  elasticsearch-certutil cert --silent --self-signed --pass "" --out "$PWD/data/transport.p12"
