"""What `scripts/compose-test` is made of."""
