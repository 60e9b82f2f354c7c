"""What shows the system at work: `polyglot demo`, `load` and the complete journey."""
