"""One HTTP request or WebSocket."""
