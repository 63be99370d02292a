"""hf-unlearn demo RUN_DIR: the original and the unlearned model side by side in a browser, here or as a Space."""

import os
from typing import TYPE_CHECKING, Any

from ..terminal import CommandParser

if TYPE_CHECKING:
    from ..side_by_side import SideBySide

TOP = 5  # classes shown of a classifier
UPLOAD = "Drop an image file here to upload"  # the name that gradio gives to the field, for those who listen


def demo_command(argv: list[str]) -> None:
    """hf-unlearn demo RUN_DIR"""
    parser = CommandParser(
        prog="hf-unlearn demo",
        description="Serve a page on this machine where the original and the unlearned model answer side by side: "
        "the same class or prompt from the same seed, or the same image.",
    )
    parser.add_argument("run_dir", nargs="?", help="Output folder of a run, with its unlearning_report.json.")
    parser.add_argument(
        "--space",
        metavar="OUT",
        help="Serve nothing: write a folder for a Hugging Face Space, with the run and its original. Without RUN_DIR "
        "it is one of the small emoji model, which forgets the rocket when the Space starts (minutes on a CPU).",
    )
    parser.add_argument("--original", help="Folder or Hub id of the original; the default is what the run recorded.")
    parser.add_argument(
        "--num_inference_steps", type=int, help="Sampling steps; the default is that of the run's metrics."
    )
    parser.add_argument("--guidance_scale", type=float, help="Guidance scale; the default is that of the metrics.")
    parser.add_argument("--host", default="127.0.0.1", help="Address; the default, 127.0.0.1, is this machine only.")
    parser.add_argument("--port", type=int, help="Port; the default is the first free one from 7860.")
    options = parser.parse_args(argv)
    if options.port is not None and not 0 < options.port < 65536:
        parser.error(f"--port must lie in 1..65535, got {options.port}")
    if options.space is not None:
        from ..space import write_space

        print(f"{write_space(options.space, options.run_dir, options.original)} is ready: python app.py, or upload it")
        return
    if options.run_dir is None:
        parser.error("name run_dir, the folder of a run, or --space OUT for a Space of the emoji model")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError(f"gradio does not import ({error}): install hf_unlearn[app]") from error
    from ...common.bars import phase
    from ..side_by_side import Drawing, side_by_side

    phase("loading both models")
    pair = side_by_side(
        options.run_dir, options.original, Drawing(options.num_inference_steps, options.guidance_scale)
    )
    phase("starting the server")
    app(pair).launch(server_name=options.host, server_port=options.port, theme=theme(), footer_links=[])


def theme() -> Any:
    """Colours whose contrast is 4.5 or more, and fonts that are fetched from nowhere."""
    import gradio as gr

    fonts: dict[str, Any] = dict(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    fills = {f"button_primary_background_fill{kind}": "*primary_700" for kind in ("", "_dark")}
    hovers = {f"button_primary_background_fill_hover{kind}": "*primary_800" for kind in ("", "_dark")}
    texts = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
    return gr.themes.Default(primary_hue="blue", **fonts).set(**fills, **hovers, **texts)


def app(pair: "SideBySide") -> Any:
    """The gradio Blocks of a pair: one input, one button, two answers. It opens on what was forgotten."""
    import gradio as gr

    from ...report.outcome import outcome

    def asked(function: Any) -> Any:
        def answer(*inputs: Any) -> Any:
            try:
                return function(*inputs)
            except ValueError as error:
                raise gr.Error(str(error)) from error

        return answer

    with gr.Blocks(title=f"Unlearned: {pair.record.forgotten}", analytics_enabled=False) as blocks:
        gr.Markdown("# Original and unlearned model\nThe same question to both.")
        gr.Textbox(pair.record.forgotten, label="Forgotten", interactive=False)
        found = outcome(pair.record)
        gr.Textbox(f"{found.state}: {found.evidence}.", label="Outcome", interactive=False)
        if pair.kind == "image":
            given: dict[str, Any] = dict(type="pil", label="Image", sources=["upload", "clipboard"])
            inputs: list[Any] = [gr.Image(placeholder=UPLOAD, **given)]
        else:
            condition = {
                "class": lambda: gr.Dropdown(pair.choices, value=pair.first, label="Class"),
                "prompt": lambda: gr.Textbox(pair.first, label="Prompt"),
                "seed": lambda: gr.State(None),
            }[pair.kind]()
            inputs = [condition, gr.Number(0, label="Seed", precision=0, minimum=0)]
            if pair.has_strength:
                inputs.append(gr.Slider(0.0, 1.5, value=1.0, step=0.05, label="Strength of the adapter"))
        button = gr.Button("Classify" if pair.kind == "image" else "Draw", variant="primary")
        with gr.Row(visible=pair.kind != "image") as answers:  # an empty label of gradio has a name without a role
            if pair.kind == "image":
                outputs: list[Any] = [gr.Label(label=name, num_top_classes=TOP) for name in ("Original", "Unlearned")]
            else:
                looks: dict[str, Any] = dict(columns=2, object_fit="contain", height="max-content", interactive=False)
                outputs = [gr.Gallery(label=name, format="png", **looks) for name in ("Original", "Unlearned")]
        function = asked(pair.classify if pair.kind == "image" else drawn(pair))
        shown = button.click(function, inputs, outputs)
        if pair.kind == "image":
            shown.success(lambda: gr.update(visible=True), None, answers)
        if pair.kind == "seed" or (pair.kind != "image" and pair.first != ""):
            blocks.load(function, inputs, outputs)  # it opens on what was forgotten
    return blocks


def drawn(pair: "SideBySide") -> Any:
    """A function of (class or prompt, seed[, strength]) that draws with both models."""

    def draw(condition: Any, seed: Any, strength: float = 1.0) -> Any:
        return pair.draw_many(condition, seed, strength=strength)

    return draw
