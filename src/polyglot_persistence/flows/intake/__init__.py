"""Intake of orders: into cache and queue, acknowledged once durable in one or both."""
