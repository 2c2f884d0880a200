"""Device Bound Session Credentials (W3C webappsec-dbsc): what `asgi_sessions.dbsc` is made of."""
