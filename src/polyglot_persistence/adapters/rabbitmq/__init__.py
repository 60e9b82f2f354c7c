"""The queue port over RabbitMQ, 3.10 or later: one quorum queue, publisher confirms."""
