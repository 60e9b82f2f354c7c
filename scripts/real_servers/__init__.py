"""The servers that `scripts/servers` starts."""
