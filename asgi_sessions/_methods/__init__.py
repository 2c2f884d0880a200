"""What `Sessions` can do, by what it is about."""
