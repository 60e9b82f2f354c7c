"""Measures this project beside the Go peer, on the same real servers, in turns within one run."""
