"""The order, its encodings and its states: frozen, pure, synchronous."""
