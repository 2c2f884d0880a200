"""The table, in SQLAlchemy Core, so that an app's Alembic can see it."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
)

from ._changeset import ID_LENGTH, REASON_LENGTH
from ._device import USER_AGENT_LENGTH

SID_LENGTH = 36
#: Characters of an IPv6 address in its longest spelling.
IP_LENGTH = 45
DIGEST_BYTES = 32


def sessions_table(name: str, metadata: MetaData) -> Table:
    """The table of sessions under the given name."""
    moment = DateTime(timezone=True)
    digest = LargeBinary(DIGEST_BYTES)
    return Table(
        name,
        metadata,
        Column("id", String(SID_LENGTH), primary_key=True),
        Column("person_id", String(ID_LENGTH), nullable=False),
        Column("app_id", String(ID_LENGTH), nullable=False),
        Column("auth_provider", String(ID_LENGTH)),
        Column("origin", String(5), nullable=False),
        Column("user_agent", String(USER_AGENT_LENGTH)),
        Column("ip_address", String(IP_LENGTH)),
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
        Column("end_reason", String(REASON_LENGTH)),
        Column("remember", Boolean, nullable=False),
        Index(f"ix_{name}_person", "person_id", "app_id", "ended_at", "id"),
        Index(f"ix_{name}_device", "device_key", "started_at"),
        Index(f"ux_{name}_live_device", "live_device_key", unique=True),
        Index(f"ix_{name}_expires_at", "expires_at"),
        Index(f"ix_{name}_ended_at", "ended_at"),
    )
