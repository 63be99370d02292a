"""hf-unlearn demo RUN_DIR: the original and the unlearned model side by side in a browser."""

import os
from typing import TYPE_CHECKING, Any

from ..terminal import CommandParser

if TYPE_CHECKING:
    from ..side_by_side import SideBySide

TOP = 5  # classes shown of a classifier


def demo_command(argv: list[str]) -> None:
    """hf-unlearn demo RUN_DIR"""
    parser = CommandParser(
        prog="hf-unlearn demo",
        description="Serve a page on this machine where the original and the unlearned model answer side by side: "
        "the same class or prompt from the same seed, or the same image.",
    )
    parser.add_argument("run_dir", help="Output folder of a run, with its unlearning_report.json.")
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
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise ValueError(f"gradio does not import ({error}): install hf_unlearn[app]") from error
    from ..side_by_side import Drawing, side_by_side

    pair = side_by_side(
        options.run_dir, options.original, Drawing(options.num_inference_steps, options.guidance_scale)
    )
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # fetches no fonts
    app(pair).launch(server_name=options.host, server_port=options.port, theme=theme, footer_links=[])


def app(pair: "SideBySide") -> Any:
    """The gradio Blocks of a pair: one input, one button, two answers."""
    import gradio as gr

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
        if pair.kind == "image":
            inputs = [gr.Image(type="pil", label="Image", sources=["upload", "clipboard"])]
        else:
            condition = {
                "class": lambda: gr.Dropdown(pair.choices, value=pair.choices[0][1], label="Class"),
                "prompt": lambda: gr.Textbox(label="Prompt"),
                "seed": lambda: gr.State(None),
            }[pair.kind]()
            inputs = [condition, gr.Number(0, label="Seed", precision=0, minimum=0)]
        button = gr.Button("Classify" if pair.kind == "image" else "Draw", variant="primary")
        with gr.Row():
            if pair.kind == "image":
                outputs = [gr.Label(label=name, num_top_classes=TOP) for name in ("Original", "Unlearned")]
            else:
                outputs = [
                    gr.Image(label=name, format="png", buttons=["download"]) for name in ("Original", "Unlearned")
                ]
        button.click(asked(pair.classify if pair.kind == "image" else pair.draw), inputs, outputs)
    return blocks
