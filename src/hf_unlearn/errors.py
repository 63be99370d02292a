"""What a user reads when something fails: one type of our own, and text that never holds a token."""

import os
import re

# hf_..., hf_oauth_..., api_org_...; names such as hf_unlearn-without-3 have no 20 letters and digits in a row.
TOKEN = re.compile(r"\b(?:hf|api_org)_(?:[a-z]+_)?[A-Za-z0-9]{20,}[A-Za-z0-9._-]*")


class DivergenceError(RuntimeError):
    """A loss exploded. The message says which, and where the last good weights are."""


def redact(text: str, *secrets: str | None) -> str:
    """`text` without Hub tokens: all that look like one, those of the environment, and `secrets` as they are."""
    for secret in (*secrets, os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")):
        if secret and len(secret) > 3:  # a shorter one would be found in any word
            text = text.replace(secret, "<token>")
    return TOKEN.sub("<token>", text)
