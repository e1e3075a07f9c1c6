"""Sentences in the languages that people read them in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Self

Language = Literal["en", "zh"]


class Said(str):
    """One sentence in each language. As a `str` it is the English one, which logs, the command line and stored
    errors have; whoever knows the reader's language asks `in_language()`."""

    __slots__ = ("zh",)
    zh: str

    def __new__(cls, en: str, zh: str) -> Self:
        said = super().__new__(cls, en)
        said.zh = zh
        return said

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # of more than a str
        return self.en, self.zh

    @property
    def en(self) -> str:
        return str(self)

    def in_(self, language: Language) -> str:
        """The sentence in that language."""
        return self.zh if language == "zh" else self.en


def in_language(text: str, language: Language) -> str:
    """`text` in that language, if it is known in it."""
    return text.in_(language) if isinstance(text, Said) else text


def in_each(text: str, change: Callable[[str], str]) -> str:
    """`text` after `change`, which is made to it in each language."""
    return Said(change(text.en), change(text.zh)) if isinstance(text, Said) else change(text)


def joined(texts: Iterable[str], separator: Said) -> Said:
    """The texts one after the other, in each language."""
    parts = list(texts)
    return Said(separator.en.join(parts), separator.zh.join(in_language(part, "zh") for part in parts))


def preferred(accept_language: str) -> Language:
    """The language that an `Accept-Language` header asks for: of English and Chinese the one that it names first,
    for browsers write the list in the order of preference; English where it names neither."""
    for tag in accept_language.lower().split(","):
        match tag.strip()[:2]:
            case "zh":
                return "zh"
            case "en":
                return "en"
    return "en"
