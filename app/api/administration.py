"""`/settings` and `/tokens`: for those who run the deployment."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import SecretStr
from sqlalchemy import make_url

from app.api.auth import Admin, RuntimeOf
from app.api.problems import documented
from app.api.schemas import NewToken, SettingAnswer, TokenAnswer, TokenRequest
from app.core.config import Settings
from app.core.redaction import redact, redact_command, redact_webhook
from app.models.api_token import create_token, list_tokens, revoke_token

router = APIRouter(tags=["administration"])


@router.get("/settings", summary="List the settings in effect", responses=documented())
def list_settings(runtime: RuntimeOf, _caller: Admin) -> list[SettingAnswer]:
    """Every setting of this process, secrets masked."""
    settings = runtime.settings
    return [
        SettingAnswer(
            name=name.upper(),
            value=_shown(settings, name),
            is_default=getattr(settings, name) == field.get_default(call_default_factory=True),
        )
        for name, field in Settings.model_fields.items()
    ]


def _shown(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    if name == "database_url":
        return redact(make_url(value).render_as_string(hide_password=True))
    if name == "publish_webhook_url" and value is not None:
        return redact_webhook(value)
    if name == "generator_command":
        return redact_command(value)
    if isinstance(value, SecretStr):
        return str(value)
    plain = settings.model_dump(mode="json", include={name})
    return redact(plain)[name]


@router.get("/tokens", summary="List tokens", responses=documented())
def list_api_tokens(runtime: RuntimeOf, _caller: Admin) -> list[TokenAnswer]:
    """All tokens, revoked ones too, oldest first."""
    with runtime.sessions() as session:
        return [TokenAnswer.model_validate(token) for token in list_tokens(session)]


@router.post("/tokens", status_code=201, summary="Make a token", responses=documented(409))
def make_token(request: TokenRequest, runtime: RuntimeOf, _caller: Admin) -> NewToken:
    """The answer is the only time that the token can be read."""
    with runtime.sessions() as session:
        token = create_token(session, request.name, request.role)
        session.commit()
    return NewToken(name=request.name.strip(), role=request.role, token=token)


@router.delete("/tokens/{name:path}", status_code=204, summary="Revoke a token", responses=documented(404))
def end_token(
    name: Annotated[str, Path(max_length=100, pattern=r"^[^\x00]+$")], runtime: RuntimeOf, _caller: Admin
) -> None:
    """End a token and every browser session made with it."""
    with runtime.sessions() as session:
        revoke_token(session, name)
        session.commit()
