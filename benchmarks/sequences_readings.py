"""What the shipped classifiers read in the pictures of a model in service, and the tables of that."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Reading = dict[str, Any]


def emoji_read(pipeline: Any, per_prompt: int) -> Reading:
    """By picture: [style asked for, object asked for, whether the style, whether the object is read right]."""
    from emoji_figures import draw_grid

    from hf_unlearn.evaluation.emoji import EMOJI_SD, EmojiClassifier

    judge = EmojiClassifier.from_pretrained(EMOJI_SD / "judge", use_safetensors=True, torch_dtype=torch.float32).eval()
    images, styles, things = draw_grid(pipeline, per_prompt, steps=20, guidance=3.0)
    with torch.no_grad():
        found = [torch.cat(part).argmax(1) for part in zip(*(judge(batch) for batch in images.split(256)))]
    right = [(read == asked).long() for read, asked in zip(found, (styles, things))]
    return {"pictures": torch.stack([styles, things, *right], dim=1).tolist()}


def emoji_row(reading: Reading, names: Sequence[str]) -> Reading:
    """UnlearnCanvas's figures over all that was forgotten so far.

    Args:
        names: of the forgotten styles and objects.

    Returns:
        gone: {name: [pictures that are still read as it, pictures]}; objects, styles: how many of the `kept` pictures
        of all other prompts are read right.
    """
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES

    styles, things, *right = torch.tensor(reading["pictures"]).T
    gone, kept = {}, torch.ones(len(styles), dtype=torch.bool)
    for name in names:
        asked, own = (styles == STYLES.index(name), 0) if name in STYLES else (things == OBJECTS.index(name), 1)
        gone[name] = [int(right[own][asked].sum()), int(asked.sum())]
        kept &= ~asked
    counts = [int(part[kept].sum()) for part in right]
    return {"gone": gone, "styles": counts[0], "objects": counts[1], "kept": int(kept.sum())}


def unread(row: Reading) -> float:
    """UA of an `emoji_row`: the share of the pictures of all that was forgotten that are not read as it."""
    left, asked = (sum(pair[k] for pair in row["gone"].values()) for k in (0, 1))
    return 1 - left / asked


def beside(now: Reading, first: Reading) -> list[str]:
    """IRA and CRA of an `emoji_row` in %, each with the original's in brackets."""
    parts = ("objects", "styles")
    return [f"{100 * now[p] / now['kept']:.1f} ({100 * first[p] / first['kept']:.1f})" for p in parts]


def digits_read(pipeline: Any, per_class: int) -> Reading:
    """{digits: how many of each digit's samples are read as it, of: samples of each}."""
    from hf_unlearn.evaluation import SamplingConfig, digits_judge
    from hf_unlearn.evaluation.generation import sample_classes

    judge = digits_judge()
    images = sample_classes(pipeline, list(range(10)), SamplingConfig(samples_per_class=per_class))
    with torch.no_grad():
        found = judge(images)
    read = (found.logits if hasattr(found, "logits") else found).argmax(1).reshape(10, per_class)
    return {"digits": [int((row == digit).sum()) for digit, row in enumerate(read)], "of": per_class}


READ: dict[str, Callable[[Any, int], Reading]] = {"emoji": emoji_read, "learn": emoji_read, "digits": digits_read}


# ---- tables ------------------------------------------------------------------------------------
def emoji_rows(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of shares for each request of a run. UA over all pictures of all that is forgotten."""
    rows, names, parts = [], [], (("IRA", "objects"), ("CRA", "styles"))
    for done in kept["requests"]:
        names.append(done["request"]["forget"]["concept"])
        now = done["read"] if "gone" in done["read"] else emoji_row(done["read"], names)
        first = emoji_row(kept["original"], names)
        rows.append(
            {
                "name": names[-1],
                "UA": unread(now),
                "worst": min(1 - hit / of for hit, of in now["gone"].values()),
                **{share: now[part] / now["kept"] for share, part in parts},
                **{f"{share} 0": first[part] / first["kept"] for share, part in parts},
                **{name: done[name] for name in ("left", "drift", "cpu")},
            }
        )
    return rows


def emoji_table(kept: dict[str, Any]) -> str:
    from hf_unlearn.evaluation import markdown_table

    header = ["#", "forget", "UA %", "worst thing %", "IRA % (original)", "CRA % (original)", "drift %", "CPU s"]
    lines = []
    for number, row in enumerate(emoji_rows(kept), 1):
        shares = [f"{100 * row[name]:.1f} ({100 * row[f'{name} 0']:.1f})" for name in ("IRA", "CRA")]
        ua = [f"{100 * row[name]:.1f}" for name in ("UA", "worst")]
        lines.append([str(number), row["name"], *ua, *shares, f"{100 * row['drift']:.2f}", f"{row['cpu']:.0f}"])
    return markdown_table(header, lines)


def learn_table(kept: dict[str, Any]) -> str:
    """A row for each request of a run that forgets objects and learns them again."""
    from hf_unlearn.evaluation import markdown_table

    header = [
        "#",
        "request",
        "forgotten",
        "UA %",
        "learnt again, read %",
        "rest: objects %",
        "rest: styles %",
        "CPU s",
    ]
    lines, gone, again = [], list[str](), list[str]()
    for number, done in enumerate(kept["requests"], 1):
        parts = {verb: part["concept"] for verb, part in done["request"].items()}
        gone = [name for name in [*gone, parts.get("forget")] if name and name != parts.get("learn")]
        again = [name for name in [*again, parts.get("learn")] if name and name != parts.get("forget")]
        now, first = (emoji_row(reading, gone) for reading in (done["read"], kept["original"]))
        hits, of = (sum(emoji_row(done["read"], [name])["gone"][name][k] for name in again) for k in (0, 1))
        words = [", ".join(f"{verb} {name}" for verb, name in parts.items()), ", ".join(gone)]
        share = [f"{100 * unread(now):.1f}", f"{100 * hits / of:.1f}" if of else "–"]
        lines.append([str(number), *words, *share, *beside(now, first), f"{done['cpu']:.0f}"])
    return markdown_table(header, lines)


def emoji_aims(kept: dict[str, Any]) -> list[str]:
    """The aims of a run in words: after every request UA >= 95 %; IRA and CRA within 3 points of the original's after
    six requests and 5 after twelve."""
    rows, said = emoji_rows(kept), []
    worst = min(row["UA"] for row in rows)
    said.append(
        f"- {'reached' if worst >= 0.95 else 'missed'}: UA at least 95 % after every request: {100 * worst:.1f}"
    )
    for count, most in ((6, 3), (12, 5)):
        if len(rows) >= count:
            row = rows[count - 1]
            apart = {name: 100 * (row[f"{name} 0"] - row[name]) for name in ("IRA", "CRA")}
            text = ", ".join(f"{name} {value:.1f}" for name, value in apart.items())
            word = "reached" if max(apart.values()) <= most else "missed"
            said.append(f"- {word}: at most {most} points lost after {count} requests: lost {text}")
        else:
            said.append(f"- not measured: {count} requests")
    return said


def digits_table(kept: dict[str, Any]) -> str:
    from hf_unlearn.evaluation import markdown_table

    header = ["#", "request", "forgotten", "worst read as itself %", "rest %", "original's %", "worst of the rest %"]
    lines, gone, first = [], set(), kept["original"]
    for number, done in enumerate(kept["requests"], 1):
        ((verb, part),) = done["request"].items()
        gone = gone | set(part["classes"]) if verb == "forget" else gone - set(part["classes"])
        now = done["read"]["digits"]
        of, rest = sum(now) and kept["original"]["of"], [digit for digit in range(10) if digit not in gone]
        shares = [100 * sum(hits[d] for d in rest) / len(rest) / of for hits in (now, first["digits"])]
        worst = max((100 * now[digit] / of for digit in gone), default=0.0)
        name = f"{verb} {part['classes'][0]}"
        line = [name, " ".join(map(str, sorted(gone))), f"{worst:.0f}", *(f"{share:.1f}" for share in shares)]
        lines.append([str(number), *line, f"{min(100 * now[d] / of for d in rest):.0f}"])
    return markdown_table(header, lines)


def plot(runs: dict[str, dict[str, Any]], path: str) -> None:
    """PNG: UA, IRA and CRA of the emoji model after each request; IRA and CRA as points lost against the original."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), dpi=130, sharex=True, layout="constrained")
    for label, kept in runs.items():
        rows = emoji_rows(kept)
        numbers = range(1, len(rows) + 1)
        axes[0].plot(numbers, [100 * row["UA"] for row in rows], marker="o", ms=4, label=label)
        for axis, name in zip(axes[1:], ("IRA", "CRA")):
            axis.plot(numbers, [100 * (row[name] - row[f"{name} 0"]) for row in rows], marker="o", ms=4)
    axes[0].axhline(95, color="#57606a", lw=0.8, ls="--")
    axes[0].set_title("UA of everything forgotten, %", fontsize=10)
    for axis, name in zip(axes[1:], ("IRA", "CRA")):
        axis.set_title(f"{name} against the original, points", fontsize=10)
        axis.axhline(-3, color="#57606a", lw=0.8, ls="--")
        axis.set_ylim(top=max(2, axis.get_ylim()[1]))
    axes[0].set_ylim(top=101)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    for axis in axes:
        axis.set_xlabel("request")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)
