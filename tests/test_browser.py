"""The page of a run, the demo and the documentation in a real browser.

Needs Chromium and the package playwright; the demo gradio; the accessibility checks axe-core of npm, beside the
checkout's README or where AXE_CORE says; those of the documentation its packages, as `make docs` installs them.
"""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_pipeline, tiny_vit
from PIL import Image
from records import run_record

from hf_unlearn.__main__ import main
from hf_unlearn.cli.side_by_side import Drawing, side_by_side

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
BASE = {"name": "base", "revision": None, "on_hub": False}
# The smallest contrast of any text with what lies under it, and the text.
CONTRAST = """() => {
  const light = c => {
    const part = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = [21, ""], count = 0;
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), own = walker.currentNode.parentElement;
    if (!text || !own.checkVisibility()) continue;
    const style = getComputedStyle(own), colour = own.closest("svg") ? style.fill : style.color;
    let under = own;
    while (under && /^rgba\\(.*, 0\\)$/.test(getComputedStyle(under).backgroundColor)) under = under.parentElement;
    const pair = [light(colour), light(getComputedStyle(under).backgroundColor)].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    count += 1;
    if (ratio < worst[0]) worst = [ratio, text];
  }
  return {worst: worst[0], text: worst[1], count: count};
}"""


SERIOUS = """() => axe.run().then(found => found.violations
  .filter(v => ["serious", "critical"].includes(v.impact))
  .map(v => `${v.impact}: ${v.id}, ${v.nodes.length} times, ${v.nodes[0].html.slice(0, 200)}`))"""
# A page of each kind: cards, code, tables, a method, a generated reference, many pictures.
DOCS_PAGES = ("", "quickstart/", "commands/", "classification/", "methods/sfron/", "api/trainer/", "emoji/")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="no browser test: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no browser test: install Chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def serious():
    """`serious(page)`: what axe-core calls serious or critical in a page, every fold open."""
    places = (os.environ.get("AXE_CORE"), ROOT / "node_modules/axe-core/axe.min.js")
    script = next((Path(place) for place in places if place and Path(place).is_file()), None)
    if script is None:
        pytest.skip("no accessibility test: npm install axe-core, or set AXE_CORE to its axe.min.js")

    def check(page) -> list[str]:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        page.evaluate(script.read_text())
        return page.evaluate(SERIOUS)

    return check


def opened(browser, address: str, width: int = 1280, scheme: str = "light"):
    """(page, what went wrong in it so far). A script of the test may run where the page itself allows none."""
    viewport = {"width": width, "height": 900}
    page = browser.new_context(viewport=viewport, color_scheme=scheme, bypass_csp=True).new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.goto(address)
    return page, wrong


@pytest.fixture
def report(tmp_path, monkeypatch, capsys):
    def make(**changes) -> str:
        Image.new("RGB", (1600, 560), "white").save(tmp_path / "before_after.png")
        run_record(**{"picture": "before_after.png", **changes}).write(tmp_path)
        monkeypatch.setattr("sys.argv", ["hf-unlearn", "report", str(tmp_path)])
        with pytest.raises(SystemExit):
            main()
        return (tmp_path / "report.html").as_uri()

    return make


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable(browser, report, width, scheme):
    page, wrong = opened(browser, report(), width, scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    assert wrong == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = page.evaluate(CONTRAST)
    assert found["count"] > 100 and found["worst"] >= 4.5, found
    assert page.locator("img:not([alt]), svg:not([aria-label]):not([aria-hidden])").count() == 0
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 11  # pixels, of the lines of text in a chart


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(browser, report, serious, width, scheme):
    assert serious(opened(browser, report(), width, scheme)[0]) == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation, built."""
    venv = Path(os.environ.get("DOCS_VENV", ROOT / ".docs-venv"))
    if not (venv / "bin/mkdocs").is_file():
        pytest.skip("no test of the documentation's pages: make docs installs what builds them")
    folder = tmp_path_factory.mktemp("site")
    build = ["bash", str(ROOT / "tools/build_docs.sh"), str(folder)]
    done = subprocess.run(build, capture_output=True, text=True, env={**os.environ, "DOCS_VENV": str(venv)})
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(f"http://127.0.0.1:{port}")
    yield f"http://127.0.0.1:{port}/"
    server.terminate()
    server.wait(20)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_documentation_is_accessible(browser, site, serious, width, scheme):
    for name in DOCS_PAGES:
        page, wrong = opened(browser, site + name, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width, name
        assert serious(page) == [] and wrong == [], name
        page.context.close()


def wait_for(address: str, alive=lambda: None) -> None:
    """Wait until a server answers; `alive` fails where it has ended."""
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            alive()
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer")


def test_nothing_of_a_record_runs(browser, report):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onmouseover='alert(3)"
    page, wrong = opened(browser, report(forgotten=evil, history=[{evil: evil}], environment={evil: evil}))
    assert wrong == [] and page.evaluate("document.scripts.length") == 0
    assert page.title() == f"Unlearning report: {evil}" and page.locator("img").count() == 1


@pytest.fixture
def demo(tmp_path):
    """`demo(make)` starts the demo of a run of such models and returns its address and folder."""
    pytest.importorskip("gradio", reason="no demo: pip install hf_unlearn[app]")
    started = []

    def start(make):
        make(0).save_pretrained(tmp_path / "base")
        make(1).save_pretrained(tmp_path / "run")
        run_record(base_model=BASE).write(tmp_path / "run")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "hf_unlearn", "demo", tmp_path / "run", "--port", str(port)]
        command += ["--num_inference_steps", "2", "--guidance_scale", "1"]
        with open(tmp_path / "demo.log", "w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        address = f"http://127.0.0.1:{port}"

        def alive() -> None:
            assert started[0].poll() is None, (tmp_path / "demo.log").read_text()

        wait_for(address, alive)
        return address, tmp_path / "run"

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_vit])
def test_the_demo_is_accessible(browser, demo, serious, make):
    address, _ = demo(make)
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            page, _ = opened(browser, address, width, scheme)
            page.get_by_role("button", name="Draw").or_(page.get_by_role("button", name="Classify")).first.wait_for()
            if make is tiny_pipeline:
                page.locator(".gallery-item img, .thumbnail-item img").nth(7).wait_for(timeout=60_000)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert serious(page) == [], (width, scheme)
            page.context.close()


def test_the_demo_draws_a_class_with_both_models(browser, demo):
    address, run = demo(tiny_pipeline)
    page, wrong = opened(browser, address)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    images = page.locator(".gallery-item img, .thumbnail-item img, [data-testid='detailed-image']")
    images.nth(7).wait_for(timeout=60_000)  # it opens on the forgotten class
    page.get_by_label("Class").click()
    page.get_by_role("option", name="2", exact=True).click()
    page.get_by_label("Seed").fill("5")
    pair = side_by_side(run, drawing=Drawing(2, 1.0))
    opened_on, expected = pair.draw_many(3, 0), pair.draw_many(2, 5)

    def shown(i: int) -> np.ndarray:
        address = images.nth(i).get_attribute("src")
        return np.asarray(Image.open(io.BytesIO(urllib.request.urlopen(address).read())).convert("L"))

    for i, image in enumerate([*opened_on[0], *opened_on[1]]):
        assert np.array_equal(shown(i), np.asarray(image.convert("L")))
    first = images.nth(0).get_attribute("src")
    page.get_by_role("button", name="Draw").click()
    for _ in range(120):
        page.wait_for_timeout(500)
        if images.count() == 8 and images.nth(7).get_attribute("src") and images.nth(0).get_attribute("src") != first:
            break
    for i, image in enumerate([*expected[0], *expected[1]]):
        assert np.array_equal(shown(i), np.asarray(image.convert("L")))
    assert wrong == [] and all(url.startswith((address, "data:", "blob:")) for url in asked), asked


def test_the_demo_classifies_an_image_with_both_models(browser, demo, tmp_path):
    address, run = demo(tiny_vit)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    image.save(tmp_path / "image.png")
    page, wrong = opened(browser, address)
    page.locator("input[type=file]").set_input_files(str(tmp_path / "image.png"))
    page.get_by_role("button", name="Remove image").or_(page.get_by_label("Remove Image")).first.wait_for()
    page.get_by_role("button", name="Classify").click()
    labels = page.locator("[data-testid=label-output-value]")
    labels.nth(1).wait_for(timeout=60_000)
    for i, shares in enumerate(side_by_side(run).classify(image)):
        assert labels.nth(i).inner_text().strip() == max(shares, key=shares.get)
    assert wrong == []
