"""The tables: what is written and read."""
