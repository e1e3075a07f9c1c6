"""`api_tokens`: who may call the API, hashed at rest."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import CheckConstraint, String, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.core.errors import Conflict, InvalidRequest, NotFound
from app.core.language import Said
from app.core.security import Role, new_token, token_hash
from app.db.database import Base
from app.db.types import UtcDateTime


class ApiToken(Base):
    """One bearer token. Only the SHA-256 of its 256 random bits is kept."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    role: Mapped[str] = mapped_column(String(10))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role"),)


def create_token(session: Session, name: str, role: str) -> str:
    """Store a token and return it: the only time it can be read. The caller commits.

    Raises:
        InvalidRequest: the name is empty or too long, or there is no such role. Conflict: the name is taken.
    """
    name = name.strip()
    if not name or len(name) > 100:
        raise InvalidRequest.of(
            "name", Said("a token needs a name of 1 to 100 characters", "令牌名称须为 1 到 100 个字符")
        )
    if role.upper() not in Role.__members__:
        raise InvalidRequest.of(
            "role",
            Said(
                f"{role!r} is no role; choose viewer, operator or admin",
                f"{role!r} 不是角色；请选择 viewer、operator 或 admin",
            ),
        )
    if session.scalar(select(ApiToken.id).where(ApiToken.name == name)) is not None:
        raise Conflict.taken("token", name)
    token = new_token()
    session.add(ApiToken(name=name, role=role.lower(), token_hash=token_hash(token)))
    session.flush()
    return token


def list_tokens(session: Session) -> list[ApiToken]:
    """All tokens, revoked ones too, oldest first."""
    return list(session.scalars(select(ApiToken).order_by(ApiToken.id)))


def revoke_token(session: Session, name: str) -> None:
    """End a token. The caller commits. Raises NotFound where no unrevoked token has that name."""
    token = session.scalar(select(ApiToken).where(ApiToken.name == name, ApiToken.revoked_at.is_(None)))
    if token is None:
        raise NotFound("token", name)
    token.revoked_at = datetime.now(UTC)


def any_token_exists(session: Session) -> bool:
    """Whether somebody has set up authentication."""
    return session.scalar(select(ApiToken.id).where(ApiToken.revoked_at.is_(None)).limit(1)) is not None


def tokens_stamp(session: Session) -> tuple[int, int]:
    """Changes whenever a token is made or revoked."""
    made, revoked = session.execute(select(func.count(), func.count(ApiToken.revoked_at))).one()
    return made, revoked


def find_token(session: Session, token: str) -> ApiToken | None:
    """The unrevoked token that this text is."""
    return session.scalar(
        select(ApiToken).where(ApiToken.token_hash == token_hash(token), ApiToken.revoked_at.is_(None))
    )
