"""The commands of `hf-unlearn`: each module is imported when its command is called."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Command:
    """One command: the module here that has its function `NAME_command`, and what it does in one line."""

    name: str
    help: str
    trains: bool = False

    def __call__(self, argv: list[str]) -> None:
        module = import_module(f".{self.name}", __name__)
        function: Callable[[list[str]], None] = getattr(module, f"{self.name}_command")
        function(argv)


COMMANDS = {
    command.name: command
    for command in (
        Command("ddpm", "Make a UNet2D diffusion pipeline forget a class or images.", trains=True),
        Command("dit", "Make a DiT pipeline forget a class or images.", trains=True),
        Command("t2i", "Make a text-to-image pipeline forget a concept.", trains=True),
        Command("sd", "The same as t2i, by its former name.", trains=True),
        Command("classify", "Make an image classifier forget a class or images.", trains=True),
        Command("compare", "Compare methods over several seeds under one budget, against retraining."),
        Command("augment", "Draw variants of the images that a classifier learns slowly, and train it on them."),
        Command("requests", "Carry out requests to learn and to forget, one after another, on one model."),
        Command("report", "Write the record of a run as one HTML page."),
        Command("export", "Write a result as one file for A1111, ComfyUI and others."),
        Command("attack", "Try to bring back what a run forgot, and say how much came back."),
        Command("check", "Compare a run with limits: exit code 0 if it keeps them, 1 if not."),
        Command("demo", "Show the original and the unlearned model side by side in a browser."),
        Command("saliency", "Show which weights matter for the forget data, and write a mask file."),
        Command("estimate", "Estimate memory and time of a run before it starts."),
        Command("publish", "Upload a finished result to the Hub."),
        Command("env", "Print versions for a bug report, or the path of an accelerate configuration."),
    )
}
