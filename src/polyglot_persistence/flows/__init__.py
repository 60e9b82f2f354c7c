"""The service layer: the order of effects. No loops, no drivers."""
