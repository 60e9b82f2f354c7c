"""The search index of the embedded deployment: tantivy, in a directory, without a server."""
