"""The steps of a session's life, options, events."""
