"""The Lua sources; `adapters/redis/script.py` reads them."""
