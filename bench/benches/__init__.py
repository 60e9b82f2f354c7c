"""One module a bench: what is set up, what is timed, and which goal it has."""
