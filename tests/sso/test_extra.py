"""The libraries of the extra are asked for by the modules that need them, and by no other."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("module", "library"), [("oidc", "httpx"), ("ssf", "joserfc"), ("jwt", "joserfc")]
)
def test_without_its_extra_a_module_names_it(
    monkeypatch: pytest.MonkeyPatch, module: str, library: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("asgi_sessions", library))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    import_module("asgi_sessions")  # which needs neither
    missing = rf"asgi_sessions\.{module} needs {library}[\w.]*: install asgi-login-sessions\[sso\]"
    with pytest.raises(ImportError, match=missing) as caught:
        import_module(f"asgi_sessions.{module}")
    assert str(caught.value.name).startswith(library)
