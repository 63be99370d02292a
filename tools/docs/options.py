"""Write the table of options into each page of docs/methods, from the fields of the method.

    python tools/docs/options.py

A page has the table between two comments; tests/test_docs.py fails where it is another one.
"""

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hf_unlearn.methods import METHODS, Method

PAGES = Path(__file__).parents[2] / "docs/methods"
BETWEEN = re.compile(r"(?<=<!-- options -->\n).*?(?=<!-- end of options -->)", re.S)


def table(method: type[Method]) -> str:
    """Markdown: a row for each field that the method does not have from another method."""
    inherited = {field.name for base in method.__mro__[1:] if base in METHODS.values() for field in fields(base)}
    own = [field for field in fields(method) if field.name not in inherited]
    lines = ["\n| flag | default | what it does |\n|---|---|---|\n"] if own else ["\nIt has no options of its own.\n"]
    hints = get_type_hints(method)
    for field in own:
        default = None if field.default is MISSING else field.default
        lines.append(f"| `--{field.name}` | {_words(default, hints[field.name])} | {field.metadata['help']} |\n")
    return "".join(lines) + "\n"


def _words(default: Any, kind: Any) -> str:
    """The default, and after it the other words to choose from."""
    if default is None:
        return "see text"
    others = [str(word) for word in get_args(kind) if isinstance(word, str) and word != default]
    shown = (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else default
    )
    return f"`{shown}`" + (f" (or {', '.join(f'`{word}`' for word in others)})" if others else "")


def filled(text: str, method: type[Method]) -> str:
    """The page with the table as it is today. Raise ValueError for a page without a place for it."""
    made, places = BETWEEN.subn(lambda _: table(method), text)
    if places != 1:
        raise ValueError(f"the page of {method.name} has {places} places for its options, not one")
    return made


def main() -> None:
    for name, method in METHODS.items():
        page = PAGES / f"{name}.md"
        page.write_text(filled(page.read_text(), method))


if __name__ == "__main__":
    main()
