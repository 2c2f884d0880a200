"""ASGI apps to mount: the page of devices, the logout route."""
