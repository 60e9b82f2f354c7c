"""Behind the acknowledgment: orders are persisted, indexed, swept, or end as dead letters."""
