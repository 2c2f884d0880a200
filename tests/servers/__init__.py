"""Servers of the tests' own, on loopback: databases, pools, proxies, to be cut and killed."""
