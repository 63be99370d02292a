"""Cache keys keep their bytes: folders on disk are named by them."""

from pathlib import Path

import pytest

from hf_unlearn.common.keys import content_key


def test_the_key_is_what_caches_on_disk_are_named_by():
    content = {"b": [1, 0.5, None], "a": "é"}
    whole = "97f0d07083dc05c4b0b5"
    assert content_key(content) == whole[:16] == content_key({"a": "é", "b": [1, 0.5, None]})
    assert content_key(content, 20) == whole
    assert content_key({**content, "b": [1, 0.5]}) != content_key(content)


def test_other_values_need_a_default():
    with pytest.raises(TypeError):
        content_key({"folder": Path("a")})
    assert content_key({"folder": Path("a")}, default=str) == content_key({"folder": "a"})
