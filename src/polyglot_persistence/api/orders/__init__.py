"""The routes of orders: one, many, and imports."""
