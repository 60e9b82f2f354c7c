"""The cache port over Redis 7 or Valkey, and the connection that other parts may use too."""
