"""The seams: what the flows need of each store. These docstrings are the contract.

One file a port; one contract suite per port (`tests/contract`) runs over every adapter of it.

Common to all:

- Every method has a deadline of its own and never waits longer.
- `UnavailableError` means that the call had no effect and will have none; `UnknownOutcomeError`
  that it may have had. A method that only reads raises only the former.
- Cancelling a caller cancels no effect that others share, and leaves no reply behind for the next.
- `ping` raises `UnavailableError`, or tells about the store; it is what readiness and doctor ask.
"""
