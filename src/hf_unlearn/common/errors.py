"""Errors that users read: the package's own exceptions, and text without Hub tokens."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

# hf_..., hf_oauth_..., api_org_...; names such as hf_unlearn-without-3 have no 20 letters and digits in a row.
TOKEN = re.compile(r"\b(?:hf|api_org)_(?:[a-z]+_)?[A-Za-z0-9]{20,}[A-Za-z0-9._-]*")


class DivergenceError(RuntimeError):
    """A loss diverged. The message names the loss and where the last good weights are."""


class OutOfMemory(RuntimeError):
    """Memory ran out. The message says what was running and which three flags to try."""


# Each setting is named twice where diffusers' training scripts have another flag for it.
SPARE = (
    "lower per_device_train_batch_size (--train_batch_size), set activation_checkpointing (--gradient_checkpointing), "
    "or train an adapter (--use_lora)"
)
SPARE_FISHER = "lower fisher_batch_size, set fisher=batch, or train an adapter (--use_lora --lora_select all)"


@contextmanager
def spare_memory(doing: str, try_this: str = SPARE) -> Iterator[None]:
    """Turn any out-of-memory error inside into one line: what failed while `doing`, and what to try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, OutOfMemory) or not _is_memory(error):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        wanted = re.search(r"tried to allocate ([\d.]+ \w+)", said, re.IGNORECASE)
        amount = f" ({wanted[1]} more were asked for)" if wanted else ""
        raise OutOfMemory(
            f"out of memory {doing}{amount}: {try_this}; `hf-unlearn estimate` says what fits"
        ) from error


def _is_memory(error: BaseException) -> bool:
    """Recognise torch.OutOfMemoryError, CUDA's own error, and those of torch's CPU allocator, Python and numpy."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said


def redact(text: str, *secrets: str | None) -> str:
    """Remove Hub tokens from `text`: everything that looks like one, those in the environment, and `secrets`."""
    for secret in (*secrets, os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")):
        if secret and len(secret) > 3:  # a shorter one would be found in any word
            text = text.replace(secret, "<token>")
    return TOKEN.sub("<token>", text)
