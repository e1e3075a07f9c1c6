"""`openai`: any OpenAI-compatible chat endpoint writes the draft."""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError

from app.core.config import Settings
from app.core.redaction import MASK
from app.executors.generators import Brief, Draft, GenerationFailed
from app.executors.markdown import one_line
from app.executors.outbound import Fetched, fetch, outbound_client

LIMIT_BYTES = 4 * 1024 * 1024
TIMEOUT_SECONDS = 120.0
_DETAIL_CHARACTERS = 300
_TITLE_CHARACTERS = 200

_SYSTEM_PROMPT = (
    "You write for a publication. Answer with one article in Markdown, in the language of the topic. "
    "Its first line is the title, as a level-one heading."
)


class _Message(BaseModel):
    content: str = Field(min_length=1)


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class OpenAIGenerator:
    """Asks the configured model for an article. The address is the operator's, so it may be a private one."""

    def __init__(self, settings: Settings, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = settings.generator_openai_url.rstrip("/") + "/chat/completions"
        self._model = settings.generator_openai_model
        self._key = settings.generator_openai_key.get_secret_value() if settings.generator_openai_key else ""
        self._timeout_seconds = timeout_seconds

    async def generate(self, brief: Brief) -> Draft:
        answer = await self._ask(brief)
        if not answer.is_success:
            raise GenerationFailed(self._refusal(answer))
        try:
            completion = _Completion.model_validate_json(answer.body)
        except ValidationError as error:
            raise GenerationFailed(f"the chat endpoint's answer holds no text: {self._detail(answer)}") from error
        title, body = split_title(completion.choices[0].message.content, brief.topic)
        return Draft(title=title, body=body, source=f"openai: {self._model}")

    async def _ask(self, brief: Brief) -> Fetched:
        async with outbound_client(allow_private=True) as client:
            request = client.build_request(
                "POST",
                self._url,
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                json={
                    "model": self._model,
                    "messages": [
                        {"role": "system", "content": _SYSTEM_PROMPT},
                        {"role": "user", "content": brief.topic},
                    ],
                },
            )
            return await fetch(client, request, limit_bytes=LIMIT_BYTES, timeout_seconds=self._timeout_seconds)

    def _refusal(self, answer: Fetched) -> str:
        retry_after = answer.headers.get("Retry-After")
        again = f" (Retry-After: {one_line(retry_after)})" if retry_after else ""
        return f"the chat endpoint answered HTTP {answer.status}{again}: {self._detail(answer)}"

    def _detail(self, answer: Fetched) -> str:
        text = one_line(answer.text)
        # Some servers quote the key they refuse.
        return (text.replace(self._key, MASK) if self._key else text)[:_DETAIL_CHARACTERS]


def split_title(article: str, topic: str) -> tuple[str, str]:
    """Title and body of an article; one without a heading at its top is named after the topic."""
    first, _, rest = article.strip().partition("\n")
    if first.startswith("# ") and rest.strip():
        return one_line(first[2:])[:_TITLE_CHARACTERS], rest.strip() + "\n"
    return topic, article.strip() + "\n"
