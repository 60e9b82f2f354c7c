"""The cache port over Redis 7 or Valkey, and a connection for other parts as well."""
