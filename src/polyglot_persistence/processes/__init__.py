"""Child processes: signs of life, and one policy of when one is killed and started again."""
