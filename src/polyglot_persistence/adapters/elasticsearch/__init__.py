"""The search index of the production deployment: Elasticsearch 8."""
