"""Pages of README and docs lead somewhere, are short, and say what the code says."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import yaml
from pages import DOCS, PAGES, ROOT, anchors, blocks, broken_links, prose, sentences

import hf_unlearn
from hf_unlearn.methods import METHODS

README = (ROOT / "README.md").read_text()
HOME = re.search(r'^Homepage = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
MOVED = [
    DOCS / f"{name}.md" for name in ("index", "quickstart", "concepts", "commands", "evidence", "limits", "platforms")
]
OURS = [*MOVED, *sorted((DOCS / "howto").glob("*.md")), *sorted((DOCS / "methods").glob("*.md"))]


class Names(yaml.SafeLoader):
    """Reads mkdocs.yml, whose slugs are a Python object, without making it."""


Names.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def site() -> dict:
    return yaml.load((ROOT / "mkdocs.yml").read_text(), Names)


def test_the_readme_is_a_page():
    assert len(re.findall(r"[^\s|*#`-]\S*", prose(README))) <= 900
    lengths = [len(re.findall(r"\w\S*", sentence)) for sentence in sentences(README)]
    assert len(lengths) > 20 and sum(lengths) / len(lengths) <= 18


def test_sentences_are_counted():
    """The counter sees what a reader sees, so that the limits above mean something."""
    text = (
        "# A title\n\nOne two `three`. Four five [six\nseven](https://x.org).\n\n| a | b |\n\n- Eight nine.\n- Ten.\n"
    )
    assert [len(s.split()) for s in sentences(text)] == [3, 4, 3, 2]
    assert "x.org" not in prose(text) and "seven" in prose(text)


@pytest.mark.parametrize("page", OURS, ids=lambda page: str(page.relative_to(DOCS)))
def test_sentences_of_the_pages_are_short(page):
    lengths = [len(re.findall(r"\w\S*", sentence)) for sentence in sentences(page.read_text())]
    assert sum(lengths) / max(len(lengths), 1) <= 18


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken_links(page, HOME) == []


def test_a_wrong_link_is_found(tmp_path):
    page = DOCS / "concepts.md"
    assert "how-the-strength-is-found" in anchors(page) and "no-such-heading" not in anchors(page)
    for link in (
        "nowhere.md",
        "#nowhere",
        f"{HOME}/blob/main/docs/concepts.md#nowhere",
        f"{HOME}/tree/main/README.md",
    ):
        wrong = tmp_path / "page.md"
        wrong.write_text(f"# A\n\n[b]({link})\n")
        assert broken_links(wrong, HOME) == [link]


def test_every_page_is_in_the_contents():
    def paths(entry) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [path for part in (entry.values() if isinstance(entry, dict) else entry) for path in paths(part)]

    listed = paths(site()["nav"])
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES[1:])


def test_the_site_asks_nobody_for_anything():
    """No fonts, scripts or styles of other machines, and no statistics."""
    settings = site()
    assert settings["theme"]["font"] is False and "analytics" not in settings.get("extra", {})
    for name in settings.get("extra_css", []) + settings.get("extra_javascript", []):
        assert (DOCS / name).is_file() and "://" not in (DOCS / name).read_text()


def test_the_api_has_every_public_name_once():
    named = re.findall(r"^::: hf_unlearn\.(\w+)$", "\n".join(p.read_text() for p in (DOCS / "api").glob("*.md")), re.M)
    assert sorted(named) == sorted(set(hf_unlearn.__all__) - {"__version__"})


def options():
    spec = importlib.util.spec_from_file_location("docs_options", ROOT / "tools/docs/options.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", METHODS)
def test_the_page_of_a_method_says_its_options_and_source(name):
    page = DOCS / "methods" / f"{name}.md"
    text, method = page.read_text(), METHODS[name]
    assert options().filled(text, method) == text, "run python tools/docs/options.py"
    assert method.paper in text and f"({name}.md)" in (DOCS / "methods/index.md").read_text()
    used = [line for block in blocks("bash", pages=[page]) for line in block.lines]
    assert all(f"--method {name}" in line or name == "sfron" for line in used)
    assert used or name == "clu"  # which training commands refuse


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_was_executed_and_can_be_again(path):
    """Its outputs are stored, none is an error, and the first cell installs the package for Colab."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert "".join(cells[0]["source"]).startswith("%pip install -q git+" + HOME)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert "/tmp" not in json.dumps(outputs) and "/work" not in json.dumps(outputs)


@pytest.mark.long
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    made = tmp_path / "made.ipynb"
    words = [sys.executable, str(ROOT / "tools/notebooks.py"), str(path), "--output", str(made)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, stored = (json.loads(p.read_text())["cells"] for p in (made, path))
    kinds = [[o["output_type"] for o in cell.get("outputs", [])] for cell in ours]
    assert kinds == [[o["output_type"] for o in cell.get("outputs", [])] for cell in stored]
