"""The peers: each with its own words for the same work, on its best supported store.

Every app has ``POST /login?person=…``, ``GET /me``, which reads whose session it is and answers
with a constant, ``GET /who``, which tells it, and ``POST /logout``.
"""
