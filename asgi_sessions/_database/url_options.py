"""What the URL of each driver may say, and how it is said to the driver."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .url import Option, Place, Rules, instead, true, true_or_false, whole, word

Values = Mapping[str, Any]

# --- SQLite ---------------------------------------------------------------------------------------

_FILE = "file:"


def _sqlite(url: Place, values: Values) -> dict[str, Any]:
    """SQLite reads them itself from a name that is a URI, and else takes them for part of it."""
    if not values:
        return {}
    if "uri" not in values or not url.database.startswith(_FILE):
        raise ValueError(
            f"{', '.join(values)}: SQLite reads options from a URI alone; write one like "
            "sqlite:///file:sessions.db?mode=rw&uri=true"
        )
    return {"uri": True}


def _is_uri(url: Place, options: Mapping[str, Any]) -> bool:
    return url.database.startswith(_FILE) and bool(options.get("uri"))


_BREAKS = "it would break sessions, which several connections read and write; leave it out"
_SQLITE = Rules(
    "aiosqlite",
    {
        "uri": Option(true("leave it out, with all other options"), "uri"),
        "mode": Option(word("rw", "rwc"), "uri"),
        "vfs": Option(str, "uri"),
        "psow": Option(str, "uri"),
        **{
            name: instead(_BREAKS)._replace(keyword="uri")
            for name in ("cache", "immutable", "nolock")
        },
        "timeout": instead("give Sessions(timeout=timedelta(seconds=...)) instead"),
    },
    _sqlite,
    _is_uri,
)

# --- TLS ------------------------------------------------------------------------------------------


def _context(
    values: Values, roots: str, certificate: str, key: str, *, mode: str = "full"
) -> ssl.SSLContext:
    """How to encrypt a connection, with files that the options of these names say.

    Args:
        values: all options.
        roots: the certificates to trust; without it, those of the system.
        certificate: our own, to log in with.
        key: its key, unless that is in the same file.
        mode: ``full``, ``ca`` (whatever the server is called) or ``any`` (nothing is verified).

    Raises:
        ValueError: with the option whose file cannot be used.
    """
    if key in values and certificate not in values:
        raise ValueError(f"{key}: it goes with {certificate}")
    names = roots
    try:
        context = ssl.create_default_context(cafile=values.get(roots))
        if certificate in values:
            names = f"{certificate}, {key}"
            # With a password of ours, or OpenSSL asks for one at the terminal.
            context.load_cert_chain(values[certificate], values.get(key), password=lambda: "")
    except OSError as error:  # an SSLError, too
        raise ValueError(
            f"{names}: not to be used ({error}); name a file in PEM format, without a password"
        ) from error
    # Python 3.13 asks more of certificates than the databases' own clients do, and than the
    # databases' own tools put into them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = mode == "full"
    context.verify_mode = ssl.CERT_NONE if mode == "any" else ssl.CERT_REQUIRED
    return context


# --- PostgreSQL -----------------------------------------------------------------------------------

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_VERSIONS = word("TLSv1.2", "TLSv1.3")
#: What asyncpg reads from a URL of its own, as libpq does.
_LIBPQ = {
    "sslmode": Option(word(*_MODES), "ssl"),
    "sslrootcert": Option(str, "ssl"),
    "sslcert": Option(str, "ssl"),
    "sslkey": Option(str, "ssl"),
    "ssl_min_protocol_version": Option(_VERSIONS, "ssl"),
    "ssl_max_protocol_version": Option(_VERSIONS, "ssl"),
    "application_name": Option(str, "server_settings"),
    "options": Option(str, "server_settings"),
    "passfile": Option(str, "passfile"),
    "target_session_attrs": Option(
        word("any", "primary", "standby", "prefer-standby", "read-write", "read-only"),
        "target_session_attrs",
    ),
}


def _ssl_word(text: str) -> bool | str:
    """As `databases` reads it: true, false, or a word of `sslmode`."""
    said = word("true", "false", *_MODES)(text.lower())
    return {"true": True, "false": False}.get(said, said)


def _one_host(text: str) -> str:
    if "," in text:
        raise ValueError("use one host")
    return text


def _unbound(text: str) -> str:
    if text == "require":
        raise ValueError(
            "asyncpg binds no channel; leave it out, with sslmode=verify-full&sslrootcert=system "
            "(or the provider's file for system) nobody else is at the other end"
        )
    return word("disable", "prefer", "require")(text)


def _postgresql(_: Place, values: Values) -> dict[str, Any]:
    libpq = {name: values[name] for name in _LIBPQ if name in values}
    options = {
        option.keyword: values[name]
        for name, option in _POSTGRESQL.options.items()
        if name in values and name not in _LIBPQ and not option.known
    }
    options.pop("", None)
    if _trusts_system(values):
        options["ssl"] = True  # asyncpg's word for it
        libpq = {name: value for name, value in libpq.items() if not name.startswith("ssl")}
    if libpq:
        options["dsn"] = f"postgresql:///?{urlencode(libpq)}"
    return options


def _trusts_system(values: Values) -> bool:
    """Whether the system's certificates are those to trust, as libpq says it. What would verify
    less than it seems to is refused.
    """
    said, roots = values.get("sslmode", values.get("ssl")), values.get("sslrootcert")
    more = [name for name in values if name in _LIBPQ and name.startswith("ssl")]
    more = [name for name in more if name != "sslmode"]
    if "ssl" in values and (more or "sslmode" in values):
        raise ValueError(
            f"ssl: it does not go with {(more or ['sslmode'])[0]}; write sslmode for ssl"
        )
    if roots == "system":
        if said not in {None, "verify-full"} or len(more) > 1:
            raise ValueError(
                "sslrootcert=system: it goes with sslmode=verify-full, and with no other option of "
                "TLS; else name a file"
            )
        return True
    mode = os.environ.get("PGSSLMODE", "prefer") if said is None else str(said)
    if mode == "disable" and more:
        raise ValueError(f"{more[0]}: nothing is encrypted; use sslmode=verify-full")
    if mode in {"allow", "prefer"} and roots:
        raise ValueError("sslrootcert: nothing is verified; use sslmode=verify-full with it")
    if mode in {"verify-ca", "verify-full"} and not roots and not _default_roots():
        raise ValueError(
            f"sslmode={mode}: it needs sslrootcert=FILE, the certificates to trust; for those that "
            "the system trusts, sslmode=verify-full&sslrootcert=system"
        )
    _context(values, "sslrootcert", "sslcert", "sslkey")  # asyncpg makes its own, when it connects
    return False


def _default_roots() -> bool:
    """Whether libpq would find certificates to trust."""
    return (
        bool(os.environ.get("PGSSLROOTCERT"))
        or Path("~/.postgresql/root.crt").expanduser().exists()
    )


_POSTGRESQL = Rules(
    "asyncpg",
    {
        **_LIBPQ,
        "ssl": Option(_ssl_word, "ssl", known=True),
        "min_size": Option(whole(0), "min_size", known=True),
        "max_size": Option(whole(1), "max_size", known=True),
        "host": Option(_one_host, "host", known=True),
        "unix_sock": Option(_one_host, "host", known=True),
        "statement_cache_size": Option(whole(0), "statement_cache_size"),
        "connect_timeout": Option(lambda text: whole(0)(text) or None, "timeout"),
        "command_timeout": Option(whole(1), "command_timeout"),
        "channel_binding": Option(_unbound),
        "pool_recycle": Option(whole(-1)),  # as `connection_max_idle`
    },
    _postgresql,
)


def _threshold(text: str) -> int | None:
    return None if text.lower() == "none" else whole(0)(text)


def _psycopg(_: Place, values: Values) -> dict[str, Any]:
    _trusts_system(values)  # it raises; libpq reads the options itself
    options = dict(values)
    if (said := options.pop("ssl", None)) is not None:
        mode = {True: "verify-full", False: "disable"}.get(said, said)
        options |= {"sslmode": mode} | ({"sslrootcert": "system"} if said is True else {})
    return options


_PSYCOPG = Rules(
    "psycopg",
    {
        **{name: option._replace(keyword=name) for name, option in _LIBPQ.items()},
        "channel_binding": Option(word("disable", "prefer", "require"), "channel_binding"),
        "connect_timeout": Option(whole(0), "connect_timeout"),
        "host": Option(_one_host, "host"),
        "max_size": Option(whole(1), "pool_size"),
        "pool_recycle": Option(whole(-1), "pool_recycle"),
        "prepare_threshold": Option(_threshold, "prepare_threshold"),
        "command_timeout": instead("use options=-c%20statement_timeout%3D5000"),
        "min_size": instead("connections are opened when they are needed; leave it out"),
        "ssl": Option(_ssl_word, "sslmode"),
        "statement_cache_size": instead("use prepare_threshold=none"),
        "unix_sock": instead("use host"),
    },
    _psycopg,
)

# --- MariaDB and MySQL ----------------------------------------------------------------------------

#: The modes of MySQL's own client. What goes with which of them, and what each verifies.
_SSL_MODES = {
    "DISABLED": ((), ""),
    "REQUIRED": (("ssl_cert", "ssl_key"), "any"),
    "VERIFY_CA": (("ssl_cert", "ssl_key", "ssl_ca", "ssl_verify_cert"), "ca"),
    "VERIFY_IDENTITY": (
        ("ssl_cert", "ssl_key", "ssl_ca", "ssl_verify_cert", "ssl_verify_identity"),
        "full",
    ),
}


def _utf8mb4(text: str) -> str:
    if text != "utf8mb4":
        raise ValueError("use utf8mb4, or leave it out; others cannot spell all ids")
    return text


def _ssl_mode(text: str) -> str:
    if text == "PREFERRED":
        raise ValueError("whoever is in between could prefer plain text; use VERIFY_IDENTITY")
    return word(*_SSL_MODES)(text)


def _mysql(_: Place, values: Values) -> dict[str, Any]:
    if twice := [name for name in values if "-" in name and name.replace("-", "_") in values]:
        raise ValueError(f"{twice[0]}: it is there twice, and one would be dropped")
    values = {name.replace("-", "_"): value for name, value in values.items()}
    options = {name: values[name] for name in _TO_MYSQL if name in values}
    asked = [name for name in values if name.startswith("ssl")]
    if not asked:
        return options
    said = {"ssl", "ssl_mode"} & {*asked}
    if len(said) > 1:
        raise ValueError("ssl, ssl_mode: they say the same; leave ssl out")
    mode = values.get("ssl_mode") or ("VERIFY_IDENTITY" if values.get("ssl", True) else "DISABLED")
    goes_with, verified = _SSL_MODES[mode]
    for name in asked:
        if name not in {*said, *goes_with}:
            raise ValueError(
                f"{name}: not with {mode}; use ssl_mode=VERIFY_IDENTITY, or leave it out"
            )
    if not verified:
        return {**options, "ssl": False}
    if "unix_socket" in values:
        raise ValueError(f"{asked[0]}: nobody listens in on a unix_socket; leave it out")
    return options | {"ssl": _context(values, "ssl_ca", "ssl_cert", "ssl_key", mode=verified)}


_TO_MYSQL = {
    "charset": Option(_utf8mb4, "charset"),
    "connect_timeout": Option(whole(1), "connect_timeout"),
    "program_name": Option(str, "program_name"),
}
_SSL = {
    "ssl_mode": Option(_ssl_mode, "ssl"),
    "ssl_ca": Option(str, "ssl"),
    "ssl_cert": Option(str, "ssl"),
    "ssl_key": Option(str, "ssl"),
    "ssl_verify_cert": Option(true("use ssl_mode=REQUIRED, which verifies nothing"), "ssl"),
    "ssl_verify_identity": Option(true("use ssl_mode=VERIFY_CA"), "ssl"),
}
_OF_MYSQL = {
    **_TO_MYSQL,
    **_SSL,
    **{name.replace("_", "-"): option for name, option in _SSL.items()},
    "ssl": Option(true_or_false, "ssl", known=True),
    "min_size": Option(whole(0), "min_size", known=True),
    "max_size": Option(whole(1), "max_size", known=True),
    "pool_recycle": Option(whole(-1), "pool_recycle", known=True),
    "unix_socket": Option(str, "unix_socket", known=True),
    "host": Option(str, "host", known=True),
    "application_name": instead("use program_name"),
    "sslmode": instead(
        "use ssl_mode=VERIFY_IDENTITY, with ssl_ca=FILE unless the system trusts it"
    ),
    "sslrootcert": instead("use ssl_ca"),
    "sslcert": instead("use ssl_cert"),
    "sslkey": instead("use ssl_key"),
}
_AIOMYSQL, _ASYNCMY = (Rules(name, _OF_MYSQL, _mysql) for name in ("aiomysql", "asyncmy"))


def rules_for(url: Place) -> Rules:
    """What this URL may say."""
    if url.dialect == "mysql":
        return _ASYNCMY if url.driver == "asyncmy" else _AIOMYSQL
    if url.dialect == "sqlite":
        return _SQLITE
    return _PSYCOPG if url.driver == "psycopg" else _POSTGRESQL
