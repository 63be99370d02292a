"""Foreign text in Markdown: shown as it is, wherever a card puts it, and never a heading, a link or HTML.

Concepts, captions, class names and folder names are anybody's words, and a record may come from a stranger.
"""

import re
from urllib.parse import quote


def one_line(text: object) -> str:
    """Return a text with every run of white space as one blank."""
    return " ".join(str(text).split())


def html(text: object) -> str:
    """Escape HTML alone, for a sentence that may hold Markdown of ours; one line."""
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown(text: object) -> str:
    """Escape Markdown and HTML, for a text between other words, in a heading or alone on a line; one line."""
    plain = re.sub(r"([\\`*\[\]|~#!$])", r"\\\1", one_line(text))
    plain = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", plain)  # within a word it is no emphasis
    plain = re.sub(r"^([-+=])", r"\\\1", plain)
    return html(re.sub(r"^(\d+)([.)])", r"\1\\\2", plain))


def code(text: object) -> str:
    """Return a text as a code span, which may also stand in a cell of a table; nothing for no text."""
    plain = one_line(text).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`" if plain else ""


def link(address: object) -> str:
    """Return an address that ends where it ends, between the brackets of a link."""
    return quote(one_line(address), safe=":/?#&=%+@~,;")


def fenced(text: object) -> str:
    """Return a line of a fenced block, which it cannot end."""
    return one_line(text).replace("```", "'''")


def papers(text: str) -> str:
    """Return a sentence of ours with a link from each arXiv id; what is between backticks stays code."""
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


FILTERS = {"fenced": fenced, "papers": papers, "html": html, "markdown": markdown, "code": code, "link": link}
