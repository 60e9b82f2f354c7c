"""The queue port over Valkey Streams with a consumer group: the embedded deployment's queue."""
