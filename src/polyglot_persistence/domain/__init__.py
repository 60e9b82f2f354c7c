"""What an order is, how it is written down, and what its states are: frozen, pure, synchronous."""
