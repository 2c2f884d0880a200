"""The tables, in SQLAlchemy Core, so that an app's Alembic can see them."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlalchemy.types import TypeEngine

from asgi_sessions._model.changeset import (
    ASSURANCE_LENGTH,
    BINDING_BYTES,
    DIGEST_BYTES,
    ID_LENGTH,
    REASON_LENGTH,
)
from asgi_sessions._model.device import USER_AGENT_LENGTH

SID_LENGTH = 36
#: Characters of an IPv6 address in its longest spelling.
IP_LENGTH = 45


# Ids compare byte by byte: MariaDB's default collations hold "ann", "Ann" and "ann " for one. The
# two servers have no name in common for a collation that does not pad with spaces.
_MARIADB = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_MYSQL = {"charset": "utf8mb4", "collation": "utf8mb4_0900_bin"}
_SID = mysql.VARCHAR(SID_LENGTH, charset="ascii", collation="ascii_bin")


def _text(length: int) -> TypeEngine[str]:
    return (
        String(length)
        .with_variant(mysql.VARCHAR(length, **_MARIADB), "mariadb")
        .with_variant(mysql.VARCHAR(length, **_MYSQL), "mysql")
    )


def _sid() -> TypeEngine[str]:
    return String(SID_LENGTH).with_variant(_SID, "mysql", "mariadb")


def _digest() -> TypeEngine[bytes]:
    return LargeBinary(DIGEST_BYTES).with_variant(mysql.BINARY(DIGEST_BYTES), "mysql", "mariadb")


_JSONB: Any = postgresql.JSONB()
_JSONB.astext_type = None  # Alembic would write it into migrations, by a name they do not know
_DATA = JSON().with_variant(_JSONB, "postgresql")
_MOMENT = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _of_provider(name: str, column: str) -> Index:
    """As the index of people, of the rows alone that have the column, where the database can: a
    login without a provider writes nothing into it.
    """
    there = text(f"{column} IS NOT NULL")
    return Index(
        name, column, "issuer", "ended_at", "id", postgresql_where=there, sqlite_where=there
    )


def sessions_table(name: str, metadata: MetaData) -> Table:
    """The table of sessions under the given name, which may name its schema: ``auth.sessions``."""
    schema, _, name = name.rpartition(".")
    moment = _MOMENT
    digest = _digest()
    binding = LargeBinary(BINDING_BYTES).with_variant(
        mysql.VARBINARY(BINDING_BYTES), "mysql", "mariadb"
    )
    return Table(
        name,
        metadata,
        Column("id", _sid(), primary_key=True),
        Column("person_id", _text(ID_LENGTH), nullable=False),
        Column("app_id", _text(ID_LENGTH), nullable=False),
        Column("auth_provider", _text(ID_LENGTH)),
        Column("origin", _text(5), nullable=False),
        Column("user_agent", _text(USER_AGENT_LENGTH)),
        Column("ip_address", _text(IP_LENGTH)),
        Column("device_key", digest, nullable=False),
        # Set on a live row of origin "scope" alone: makes parallel first requests one row.
        Column("live_device_key", digest),
        Column("secret_hash", digest, nullable=False),
        Column("previous_secret_hash", digest),
        Column("secret_seen_at", moment),
        Column("started_at", moment, nullable=False),
        # In no index: it is the one column that is written again and again.
        Column("last_seen_at", moment, nullable=False),
        Column("authenticated_at", moment),
        Column("expires_at", moment, nullable=False),
        Column("ended_at", moment),
        Column("end_reason", _text(REASON_LENGTH)),
        Column("remember", Boolean, nullable=False),
        Column("acr", _text(ASSURANCE_LENGTH)),
        Column("amr", _text(ASSURANCE_LENGTH)),
        # Of a session whose device has registered: since when its proof is needed (8 bytes,
        # microseconds since 1970; zeros until the bound cookie has come for the first time), which
        # challenges were used, and the public key.
        Column("binding", binding),
        # When the current secret took the place of the one before.
        Column("renewed_at", moment),
        # Of a session whose client sends a token in place of the cookie.
        Column("bearer", Boolean, nullable=False),
        # Of a session with lifetimes of its own: the idle timeout; `expires_at` is the other one.
        Column("idle_seconds", Integer),
        # Of a session in which somebody acts for the person: who, since which session, and why.
        Column("actor_id", _text(ID_LENGTH)),
        Column("actor_sid", _sid()),
        Column("actor_reason", _text(ID_LENGTH)),
        # Who says who the person is, and in whose words: what ends sessions finds them by that.
        Column("issuer", _text(ID_LENGTH)),
        Column("subject", _text(ID_LENGTH)),
        Column("provider_sid", _text(ID_LENGTH)),
        Index(f"ix_{name}_person", "person_id", "app_id", "ended_at", "id"),
        Index(f"ix_{name}_device", "device_key", "started_at"),
        Index(f"ux_{name}_live_device", "live_device_key", unique=True),
        # Of those that nobody has ended, the first that run out; of the others, the first that did.
        Index(f"ix_{name}_over", "ended_at", "expires_at"),
        _of_provider(f"ix_{name}_subject", "subject"),
        _of_provider(f"ix_{name}_provider_sid", "provider_sid"),
        schema=schema or None,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )


def cutoffs_table(name: str, metadata: MetaData) -> Table:
    """The table of cut-offs beside the table of sessions of that name."""
    schema, _, name = name.rpartition(".")
    return Table(
        f"{name}_cutoffs",
        metadata,
        Column("person_id", _text(ID_LENGTH), primary_key=True),
        # Empty for all apps.
        Column("app_id", _text(ID_LENGTH), primary_key=True),
        Column("cut_at", _MOMENT),
        Column("spared_sid", _sid()),
        # The latest proof of the person that was dated ahead of the clock.
        Column("proved_at", _MOMENT),
        Column("readmitted_at", _MOMENT),
        Column("changed_at", _MOMENT, nullable=False),
        Index(f"ix_{name}_cutoffs", "changed_at"),
        schema=schema or None,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )


def data_table(name: str, metadata: MetaData) -> Table:
    """The table of data beside the table of sessions of that name: a row for a session that has
    some, until it ends.
    """
    schema, _, name = name.rpartition(".")
    return Table(
        f"{name}_data",
        metadata,
        Column("id", _sid(), primary_key=True),
        Column("data", _DATA, nullable=False),
        schema=schema or None,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )


def visitors_table(name: str, metadata: MetaData) -> Table:
    """The table of visitors beside the table of sessions of that name: who has data without a
    login. They are removed by the ids, which begin with the time, so that no other index is
    written.
    """
    schema, _, name = name.rpartition(".")
    return Table(
        f"{name}_visitors",
        metadata,
        Column("id", _sid(), primary_key=True),
        Column("secret_hash", _digest(), nullable=False),
        Column("started_at", _MOMENT, nullable=False),
        Column("last_seen_at", _MOMENT, nullable=False),
        Column("data", _DATA, nullable=False),
        schema=schema or None,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )


def ddl(table: Table, dialect: Dialect) -> list[str]:
    """The statements that make a table and its indexes, in a dialect."""
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    # MySQL knows no IF NOT EXISTS for indexes, and its drivers warn where it holds.
    exists = dialect.name not in {"mysql", "mariadb"}
    made: list[ExecutableDDLElement] = [CreateTable(table, if_not_exists=exists)]
    made += [CreateIndex(index, if_not_exists=exists) for index in indexes]
    return [_tidy(str(one.compile(dialect=dialect))) for one in made]


def _tidy(statement: str) -> str:
    """With neither tabs nor spaces at the end of lines, as it may stand on a page."""
    indented = re.sub(r"\s*\n\s*", "\n    ", statement.strip())
    return indented.replace("\n    )", "\n)").replace(")ENGINE", ") ENGINE")
