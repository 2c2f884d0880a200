"""``asgi-sessions`` and ``python -m asgi_sessions``: see `_cli`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line, or say what it needs; the exit code."""
    try:
        from ._cli.commands import run  # noqa: PLC0415 -- an extra, which may not be there
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in {"click", "rich"}:
            raise
        sys.stderr.write(
            f"asgi-sessions needs {library}, which is not installed: "
            "pip install 'asgi-login-sessions[cli]'\n"
        )
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
