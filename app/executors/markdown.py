"""Markdown from strangers: made safely, shown safely, counted."""

from __future__ import annotations

import html
import re
from urllib.parse import quote, urlsplit

import nh3
from markdown_it import MarkdownIt

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\U00020000-\U0003134f"
"""Han, kana and hangul, as the inside of a regular expression's character class."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~#&!$])")
_LIST_START = re.compile(r"^(?:([-+=])|(\d{1,9})([.)]))")
_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:[-'’.][^\W_{CJK}]+)*")
_TAGS = {
    *("a", "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "em", "strong", "code", "pre"),
    *("blockquote", "hr", "br", "table", "thead", "tbody", "tr", "th", "td"),
}
_RENDERER = MarkdownIt("commonmark", {"html": False}).enable("table")


def one_line(text: str) -> str:
    """`text` with white space collapsed; control characters count as such."""
    return " ".join(_CONTROL.sub(" ", text).split())


def plain_text(markup: str) -> str:
    """The text of an HTML fragment, on one line; scripts and styles are dropped with their content."""
    return one_line(html.unescape(nh3.clean(markup, tags=set())))


def escape(text: str) -> str:
    """`text` as Markdown that renders as just that text, on one line."""
    marked = _MARKUP.sub(r"\\\1", one_line(text))
    return _LIST_START.sub(lambda match: f"{match[2] or ''}\\{match[1] or match[3]}", marked)


def link(text: str, url: str) -> str:
    """A Markdown link, or only the text where `url` is no web address (`javascript:`, `data:` …)."""
    address = web_address(url)
    return f"[{escape(text)}]({address})" if address else escape(text)


def web_address(url: str) -> str | None:
    """`url` fit for a Markdown link, or None where it is no http(s) address with a host."""
    try:
        parts = urlsplit(url.strip())
        safe = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return None
    if not safe:
        return None
    # Percent-encoding what Markdown could read: brackets, quotes, white space, backslashes.
    encoded = quote(parts.geturl().encode("utf-8", "replace"), safe="%/:?#[]@$&+,;=~-._!")
    return encoded.replace("&", "\\&")


def to_html(markdown: str) -> str:
    """HTML of a piece of Markdown: no raw HTML, no scripts, no images, links to web addresses only."""
    return nh3.clean(
        _RENDERER.render(markdown),
        tags=_TAGS,
        attributes={"a": {"href", "title"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener noreferrer",
    )


def words(markdown: str) -> list[str]:
    """The words that `word_count` counts, in lower case."""
    return [word.casefold() for word in _WORD.findall(plain_text(_RENDERER.render(markdown)))]


def link_targets(markdown: str) -> list[str]:
    """The addresses of the links in a piece of Markdown, in their order, as they are written."""
    inline = (token for block in _RENDERER.parse(markdown) for token in block.children or ())
    return [str(token.attrGet("href") or "") for token in inline if token.type == "link_open"]


def word_count(markdown: str) -> int:
    """Words of the rendered text, addresses of links not included; each CJK character counts as one."""
    return len(_WORD.findall(plain_text(_RENDERER.render(markdown))))
