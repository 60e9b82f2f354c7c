"""The ports: what the flows need of each store. These docstrings are the contract.

One file per port; one contract suite per port (`tests/contract`) runs over each of its adapters.

Common to all:

- Every method has a deadline of its own and never waits longer.
- `UnavailableError` means that the call had no effect and will have none; `UnknownOutcomeError`
  means that it may have had one. A method that only reads raises only the former.
- Canceling a caller cancels no effect that others share, and leaves no reply behind for the next.
- `ping` raises `UnavailableError`, or returns the store's state; readiness and doctor use it.
"""
