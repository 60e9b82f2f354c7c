"""What a query is, how text becomes terms, and what matches and ranks."""
