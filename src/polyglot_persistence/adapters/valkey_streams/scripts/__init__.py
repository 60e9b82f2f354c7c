"""The Lua sources; `adapters/valkey_streams/stream.py` reads them."""
