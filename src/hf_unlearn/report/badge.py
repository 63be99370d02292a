"""The outcome as a small picture: verdict.svg beside a card, which needs no network and no service to be shown."""

from pathlib import Path

from markupsafe import Markup

from ..common.files import write_text
from .record import BROKE_THE_REST, FORGOTTEN, NOT_FORGOTTEN, NOT_REMOVED, NOT_TESTED, PARTLY_FORGOTTEN, Outcome

BADGE_FILE = "verdict.svg"
LABEL = "unlearning"
HEIGHT, PADDING = 20, 8  # pixels
SMALL, CAPITAL = 6.2, 8.4  # mean widths of a letter of 11 px, the second bold
# White text stands on them: each has a contrast of at least 4.5 to it.
COLOURS = {
    FORGOTTEN: "#1a7f37",
    NOT_REMOVED: "#bc4c00",
    PARTLY_FORGOTTEN: "#9a6700",
    NOT_FORGOTTEN: "#cf222e",
    BROKE_THE_REST: "#8250df",
    NOT_TESTED: "#59636e",
}


def badge(outcome: Outcome) -> str:
    """An SVG of the state, whose label says the evidence to who does not see it."""
    left, right = 2 * PADDING + SMALL * len(LABEL), 2 * PADDING + CAPITAL * len(outcome.state)
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" role="img" aria-label="{said}">'
        '<title>{said}</title><rect width="{width:.0f}" height="{height}" rx="3" fill="#32383f"/>'
        '<path d="M{left:.0f} 0h{inner:.0f}a3 3 0 0 1 3 3v{side}a3 3 0 0 1 -3 3h-{inner:.0f}z" fill="{colour}"/>'
        '<g fill="#ffffff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        '<text x="{first:.0f}" y="14" textLength="{label_width:.0f}">{label}</text>'
        '<text x="{second:.0f}" y="14" font-weight="bold" textLength="{state_width:.0f}">{state}</text></g></svg>'
    )
    return str(
        Markup(drawn).format(
            width=left + right,
            height=HEIGHT,
            said=f"{outcome.state}: {outcome.evidence}",
            left=left,
            inner=right - 3,
            side=HEIGHT - 6,
            colour=COLOURS[outcome.state],
            first=left / 2,
            second=left + right / 2,
            label=LABEL,
            state=outcome.state,
            label_width=left - 2 * PADDING,
            state_width=right - 2 * PADDING,
        )
    )


def write_badge(folder: str | Path, outcome: Outcome) -> Path:
    """Write BADGE_FILE to `folder`, and return its path."""
    path = Path(folder) / BADGE_FILE
    write_text(path, badge(outcome) + "\n")
    return path
