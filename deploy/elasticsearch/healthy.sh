#!/bin/bash
# Says whether Elasticsearch has its indexes. The password comes on curl's standard input.
set -euo pipefail
password=$(sed 's/[\\"]/\\&/g' /run/secrets/elasticsearch_password)
curl -sf --config - 'http://127.0.0.1:9200/_cluster/health?wait_for_status=yellow&timeout=4s' <<END
user = "polyglot:$password"
END
