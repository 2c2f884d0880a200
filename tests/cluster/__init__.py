"""Replicated databases on loopback, whose nodes can be killed, stopped and brought back."""
