"""What README and docs print: blocks of code, commands, links and anchors, read without a Markdown library."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]*) -->\n+)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S
)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.M)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block. `why` is what a comment above it, `<!-- not run: ... -->`, gives as the reason not to run it."""

    page: Path
    language: str
    text: str
    why: str | None

    @property
    def lines(self) -> list[str]:
        """Its commands: lines that end in a backslash are put together, comments left out."""
        whole = self.text.replace("\\\n", " ").splitlines()
        return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in whole) if line]


def blocks(*languages: str, pages: list[Path] = PAGES) -> list[Block]:
    """The blocks of the pages in these languages, in order."""
    found = [(page, match) for page in pages for match in FENCE.finditer(page.read_text())]
    made = [Block(page, m["language"], m["text"], m["why"]) for page, m in found]
    return [block for block in made if block.language in languages]


def words_of(line: str) -> list[str]:
    """[command of hf-unlearn or script, its arguments] of a line, or [] if it is neither."""
    line = re.sub(r"\$\([^)]*\)", "FOLDER", line)
    match = re.search(r"scripts/(unlearn_\w+\.py)(.*)|(?:-m hf_unlearn|^hf-unlearn)\s+(\w+)(.*)", line)
    return [match[1] or match[3], *shlex.split(match[2] or match[4] or "")] if match else []


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(path: Path) -> set[str]:
    """The anchors of a page, as GitHub and the site make them."""
    found: dict[str, int] = {}
    for title in HEADING.findall(FENCE.sub("", path.read_text())):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        found[name] = found.get(name, 0) + 1
    return {name if n == 0 else f"{name}-{n}" for name, count in found.items() for n in range(count)}


def broken_links(page: Path, home: str) -> list[str]:
    """Links of a page to files or anchors that are nowhere. Those to other sites are not followed.

    Args:
        home: the address of the repository, whose blob, tree and raw links are looked up in the checkout.
    """
    wrong = []
    for link in LINK.findall(without_code(page.read_text())):
        parts = urlsplit(link)
        if link.startswith(home):
            match = re.fullmatch(rf"{re.escape(home)}/(raw|blob|tree)/main/([^#]+)(?:#.*)?", link)
            if match is None:
                continue  # an address of the repository that is no file, such as its issues
            target = ROOT / match[2]
            there = target.is_dir() if match[1] == "tree" else target.is_file()
        elif parts.scheme:
            continue
        else:
            target = (page.parent / parts.path).resolve() if parts.path else page
            there = target.exists() and target.is_relative_to(ROOT)
        if not there or (parts.fragment and target.suffix == ".md" and parts.fragment not in anchors(target)):
            wrong.append(link)
    return wrong


def prose(text: str) -> str:
    """A page as it is read: text and tables without code blocks, pictures, addresses and marks."""
    text = re.sub(r"<!--.*?-->", "", FENCE.sub("", text), flags=re.S)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text, flags=re.S)


def sentences(text: str) -> list[str]:
    """The sentences of the paragraphs and list items of a page; tables and headings have none."""
    kept = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*[-*] )", prose(text)):
        if not re.match(r"\s*(#|\|)", paragraph):
            kept += re.split(r"(?<=[.!?])\s+(?=[A-Z0-9*`])", " ".join(paragraph.split()))
    return [s for s in kept if re.search(r"\w", s)]
