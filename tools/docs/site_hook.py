"""MkDocs hook: links that leave docs/, commands in a sentence, and a name that the theme lacks for those who listen.

A link that leaves docs/ leads to the repository, and a picture outside of docs/ is copied to the site. Pages so read
alike on GitHub and on the site, and the strict build fails on a path that is nowhere.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()(?:\.\./)+[^)\s]+(?=\))")
BLOCK = re.compile(r"<pre.*?</pre>", re.DOTALL)
FLAG = re.compile(r"(?<=[\s>])--[a-zA-Z][\w-]*(?=[\s<])")  # in the text of a block, where lines may end at a hyphen
PICTURES = (".png", ".svg")
COMMAND = re.compile(r"<code>(?=[^<]{40})")  # a flag is never broken; what is longer than a line of a phone must be


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the relative links of a page that leave the folder of the documentation."""
    docs, here = Path(config.docs_dir).resolve(), Path(page.file.abs_src_path).parent

    def rewritten(match: re.Match[str]) -> str:
        parts = urlsplit(match[0])
        target = (here / parts.path).resolve()
        if target.is_relative_to(docs):
            return match[0]
        if not target.exists():
            raise PluginError(f"{page.file.src_uri} links to {match[0]}, which does not exist")
        path = target.relative_to(ROOT).as_posix()
        if target.suffix in PICTURES:
            place = f"repository/{path}"
            if files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(target)))
            return "../" * page.file.src_uri.count("/") + place
        kind = "tree" if target.is_dir() else "blob"
        return f"{config.extra['repository']}/{kind}/main/{path}" + (f"#{parts.fragment}" if parts.fragment else "")

    return LINK.sub(rewritten, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Let commands in a sentence wrap, and keep flags in blocks of code in one piece."""
    wrapped = COMMAND.sub('<code class="long">', html)
    return BLOCK.sub(lambda block: FLAG.sub(r'<span class="flag">\g<0></span>', block[0]), wrapped)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Give the search dialog the name that the theme leaves out."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')
