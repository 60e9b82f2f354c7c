"""What is derived from the record: search and sales, and how they are rebuilt."""
