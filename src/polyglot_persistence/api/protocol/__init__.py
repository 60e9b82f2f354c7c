"""HTTP over sockets: heads, framing, limits, and the fast lane for the hot routes."""
