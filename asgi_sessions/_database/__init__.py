"""Engines, connections, batching and compiled statements. Knows nothing of sessions."""
