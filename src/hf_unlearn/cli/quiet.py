"""Messages of libraries that concern nobody who runs a command: exactly these, and nothing else, are not shown.

Each is about what this package does on purpose, so that a reader could change nothing. An error stays an error, and a
message of the same logger with other words is shown.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# (logger, the whole beginning of the message, why nobody needs it)
MESSAGES = (
    (
        "diffusers.configuration_utils",
        r"The config attributes \{.*\} were passed to AutoencoderTiny, but are not expected",
        "the small autoencoder is saved by a newer version with settings that do nothing in it",
    ),
    (
        "diffusers.pipelines.pipeline_utils",
        r"Expected types for vae: .*, got <class '.*\.AutoencoderTiny'>\.",
        "a pipeline works with the small autoencoder as with the large one",
    ),
    (
        "diffusers.pipelines",
        r"You have disabled the safety checker for <class '.*'> by passing `safety_checker=None`",
        "data are drawn without one on purpose; docs/security.md says so",
    ),
    (
        "diffusers.loaders",
        r"No LoRA keys associated to \w+ found with the prefix",
        "an adapter of the UNet alone has none of the text encoder's",
    ),
    (
        "transformers",
        r"`\w+` requires \w+ \(not installed\); falling back to `\w+Pil`|"
        r"Requested \w+ backend is not available\. Falling back to pil backend\.",
        "images are prepared with Pillow on purpose, and nothing else is needed for it",
    ),
)
# (category, beginning of the message, module)
WARNINGS = ((FutureWarning, r"`is_gradient_checkpointing` is deprecated", r"transformers\."),)


class Unneeded(logging.Filter):
    """Lets every record through but the messages of `MESSAGES` below the level of errors."""

    patterns = [(name, re.compile(text, re.DOTALL)) for name, text, _ in MESSAGES]

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        said = record.getMessage()
        return not any(
            (record.name == name or record.name.startswith(f"{name}.")) and text.match(said)
            for name, text in self.patterns
        )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Leave these messages out of what a command shows.

    The filter hangs on the handlers of both libraries, since a logger's own filter does not see what loggers below it
    say. The libraries add their handler when they are first imported, so it is looked for again whenever one logs.
    """
    unneeded, made = Unneeded(), logging.getLogRecordFactory()
    hung: list[logging.Handler] = []

    def record(*args: object, **kwargs: object) -> logging.LogRecord:
        for name in ("diffusers", "transformers"):
            for handler in logging.getLogger(name).handlers:
                if unneeded not in handler.filters:
                    handler.addFilter(unneeded)
                    hung.append(handler)
        return made(*args, **kwargs)

    logging.setLogRecordFactory(record)
    with warnings.catch_warnings():
        for category, message, module in WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category, module=module)
        try:
            yield
        finally:
            logging.setLogRecordFactory(made)
            for handler in hung:
                handler.removeFilter(unneeded)
