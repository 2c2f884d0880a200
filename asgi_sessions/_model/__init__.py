"""Values and rules. Pure: no database, no framework, no event loop."""
