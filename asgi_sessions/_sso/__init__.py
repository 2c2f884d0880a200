"""Single sign-on: what a provider says of sessions here, and what other services are told."""
