"""The course of a sequence as tables, a picture, a page and a model card."""

import base64
from pathlib import Path
from typing import Any

from markupsafe import Markup

from .. import __version__
from ..common.files import atomic, write_text
from ..evaluation.tables import markdown_table
from ..report.escaping import markdown
from .figures import NAMES, Course
from .ledger import Entry, Ledger
from .outcome import readings, unfinished
from .picture_course import NAMES as PICTURE_NAMES
from .picture_course import PictureCourse
from .picture_course import plot as plot_pictures

PICTURE_FILE, PAGE_FILE, CARD_FILE = "requests.png", "requests.html", "README.md"
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2328}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #d0d7de;padding:.25rem .6rem;text-align:left}"
    "img{max-width:100%}code{font-size:85%}"
)


def rows(ledger: Ledger) -> tuple[list[str], list[list[str]]]:
    """Header and rows of all requests: what was asked and what came of it."""
    header = ["#", "request", "state", "now", "ended", "samples", "steps", "seconds", "known classes", "weights after"]
    found, now = [], readings(ledger)
    for entry in ledger.entries:
        samples = ", ".join(f"{name} {count}" for name, count in entry.samples.items())
        known = " ".join(map(str, entry.figures.get("known", [])))
        done = entry.state == "done"
        said = entry.state if entry.state != "failed" else f"failed: {entry.error}"
        seconds = f"{entry.trained_seconds:.1f}"
        numbers = [str(entry.steps), seconds, known, entry.weights_after] if done else ["", "", "", ""]
        ended = str(entry.times.get("ended", ""))
        state = now[entry.number].state.lower() if entry.number in now else ""
        found.append([str(entry.number), entry.asked.text, said, state, ended, samples, *numbers])
    return header, found


def summary(ledger: Ledger) -> list[list[str]]:
    """(metric, value, meaning) of all metrics that there are."""
    if not ledger.done:
        return []
    found = PictureCourse.of(ledger).figures() if _draws(ledger) else Course.of(ledger).figures()
    names = PICTURE_NAMES if _draws(ledger) else NAMES
    units = {name: "points" if name in ("FM", "relapse") else "%" for name in names}
    return [
        [name, f"{100 * value:.1f} {units[name]}", names[name]] for name, value in found.items() if value is not None
    ]


def _draws(ledger: Ledger) -> bool:
    """Whether it is the ledger of a diffusion model."""
    return "tag" in ledger.setup


def status(ledger: Ledger) -> str:
    """Where the requests stand, and what of them is not forgotten, in one line."""
    counts = {
        state: sum(e.state == state for e in ledger.entries) for state in ("done", "running", "failed", "queued")
    }
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no requests"
    following = next(iter(ledger.open), None)
    said = said if following is None else f"{said}; next is {following.number}: {following.asked.text}"
    left = unfinished(ledger)
    return f"{said}. Not forgotten: {left}" if left else said


def listing(ledger: Ledger) -> str:
    """All requests as a table that reads well in a terminal."""
    return markdown_table(*rows(ledger))


# ---- picture -----------------------------------------------------------------------------------
def plot(ledger: Ledger, path: str | Path) -> None:
    """Write a PNG: accuracy on each task after each request, what it took, and what came back of the forgotten; of a
    diffusion model what is left of the forgotten, and the drift.

    Raises:
        ValueError: no request is done yet.
    """
    if not ledger.done:
        raise ValueError("no request is done yet, so there is no course to show")
    if _draws(ledger):
        plot_pictures(PictureCourse.of(ledger), [_short(entry) for entry in ledger.done], path)
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    course = Course.of(ledger)
    words = [_short(entry) for entry in course.entries]
    high, wide = 0.42 * len(course.tasks) + 3.6, max(5.5, 0.8 * len(words) + 2.5)
    ratios = [0.42 * len(course.tasks) + 0.5, 1.0, 1.4]
    figure, axes = plt.subplots(
        3, 1, figsize=(wide, high), dpi=130, sharex=True, gridspec_kw={"height_ratios": ratios}
    )
    _matrix(axes[0], course)
    axes[1].bar(range(len(words)), course.seconds, color="#57606a", width=0.6)
    axes[1].set_ylabel("seconds")
    _relapse(axes[2], course)
    axes[2].set_xticks(range(len(words)), words, rotation=0 if max(map(len, words)) < 6 else 30, ha="center")
    axes[2].set_xlabel("request")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels(axes)
    figure.tight_layout()
    with atomic(path) as partial:
        figure.savefig(partial, format="png")
    plt.close(figure)


def _matrix(axis: Any, course: Course) -> None:
    """Accuracy on all classes of each task; framed where some class of it is known."""
    from matplotlib.patches import Rectangle

    values = list(zip(*course.whole, strict=True))  # a row for each task
    axis.imshow([[100 * v for v in row] for row in values], cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for j, row in enumerate(values):
        for i, value in enumerate(row):
            axis.text(
                i, j, f"{100 * value:.0f}", ha="center", va="center", color="white" if value > 0.6 else "#1f2328"
            )
            if any(label in course.known[i] for label in course.tasks[j]):
                frame: Any = dict(fill=False, edgecolor="#1a7f37", linewidth=2)
                axis.add_patch(Rectangle((i - 0.46, j - 0.44), 0.92, 0.88, **frame))
    names = [f"task {j} ({', '.join(map(str, task))})" for j, task in enumerate(course.tasks)]
    axis.set_yticks(range(len(names)), names)
    axis.set_title("test accuracy in % on each task's classes; green: some of them are known", fontsize=10)


def _relapse(axis: Any, course: Course) -> None:
    """Accuracy on what each request forgot, from that request on."""
    for f in course.forget_requests:
        later = [(i, course.left(f, i)) for i in range(f, len(course.entries))]
        points = [(i, 100 * value) for i, value in later if value is not None]
        axis.plot(*zip(*points, strict=True), marker="o", ms=4, label=f"forgotten by {_short(course.entries[f])}")
    axis.set_ylim(-5, 105)
    axis.set_ylabel("left of the\nforgotten, %")
    axis.grid(alpha=0.25)
    if course.forget_requests:
        axis.legend(fontsize=8, frameon=False, loc="upper left")
    else:
        axis.text(0.5, 0.5, "nothing was forgotten", ha="center", va="center", transform=axis.transAxes)


def _short(entry: Entry) -> str:
    word = entry.asked.word
    return word if len(word) < 6 else f"{entry.number}: {'+' if entry.asked.to_learn else ''}{_kinds(entry)}"


def _kinds(entry: Entry) -> str:
    gone, new = entry.asked.to_forget, entry.asked.to_learn
    said = [] if new is None else [new.text]
    return " ".join([*said, *([] if gone is None else [f"-{gone.text}"])])


# ---- page and card -----------------------------------------------------------------------------
def write_report(ledger: Ledger, folder: str | Path) -> Path:
    """Write picture and page to `folder`, and return the path of the page, which holds the picture."""
    picture = Path(folder) / PICTURE_FILE
    plot(ledger, picture)
    path = Path(folder) / PAGE_FILE
    write_text(path, page(ledger, picture.read_bytes()))
    return path


def page(ledger: Ledger, picture: bytes) -> str:
    """One HTML page that needs nothing else."""
    head = Markup(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Requests</title><style>{}</style>'
    ).format(Markup(STYLE))
    image = Markup('<img alt="{}" src="data:image/png;base64,{}">').format(
        "what is known and what came back after each request", base64.b64encode(picture).decode()
    )
    parts = [
        head,
        Markup("<h1>Requests to one model</h1><p>{}</p>").format(status(ledger)),
        image,
        _table(["metric", "value", "meaning"], summary(ledger)),
        Markup("<h2>Ledger</h2>"),
        _table(*rows(ledger)),
        Markup("<p>hf-unlearn {}</p></html>\n").format(__version__),
    ]
    return str(Markup("\n").join(parts))


def _table(header: list[str], body: list[list[str]]) -> Markup:
    def line(cells: list[str], tag: str) -> Markup:
        made = Markup("").join(Markup("<{0}>{1}</{0}>").format(Markup(tag), cell) for cell in cells)
        return Markup("<tr>{}</tr>").format(made)

    lines = [line(header, "th"), *(line(row, "td") for row in body)]
    return Markup("<table>{}</table>").format(Markup("").join(lines))


def card(ledger: Ledger) -> str:
    """The model card of a model in service: its ledger, and the metrics over all requests."""
    header, body = rows(ledger)
    table = markdown_table(header, [[markdown(cell) for cell in row] for row in body])
    figures = markdown_table(["metric", "value", "meaning"], summary(ledger))
    draws = _draws(ledger)
    tag, library = (ledger.setup["tag"], "diffusers") if draws else ("image-classification", "transformers")
    return (
        f"---\npipeline_tag: {tag}\nlibrary_name: {library}\ntags:\n- unlearning\n---\n"
        f"# A {'diffusion model' if draws else 'classifier'} that learns and forgets on request\n\n"
        f"Its ledger says what was asked of it and what came of each request ({status(ledger)}). Samples stand in it "
        f"as hashes only. Made with hf-unlearn {__version__}.\n\n{table}\n\n{figures}\n"
    )
