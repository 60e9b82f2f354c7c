"""Child processes: heartbeats, and one policy for killing and restarting them."""
