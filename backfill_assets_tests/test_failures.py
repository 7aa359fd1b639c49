"""Texts from outside lose only their secrets, in every spelling."""

from __future__ import annotations

import pytest

from backfill_assets.failures import redacted

KEY = 'TD.a+b/c="d"&e'


@pytest.mark.parametrize(
    "spelling",
    [
        KEY,
        KEY.upper(),
        "TD.a%2Bb%2Fc%3D%22d%22%26e",
        "td.a%2bb%2fc%3d%22d%22%26e",
        'TD.a+b/c=\\"d\\"&e',
        "TD.a+b/c=&quot;d&quot;&amp;e",
    ],
)
def test_a_secret_is_taken_out_in_every_spelling(spelling):
    assert redacted(f"before {spelling} after", KEY) == "before *** after"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:pass@host/x", "https://***@host/x"),
        ("https://me:p@ss@host:1/x?y=a@b", "https://***@host:1/x?y=a@b"),
        ("https://token@host", "https://***@host"),
        ("mail me@host about http://host/a@b", "mail me@host about http://host/a@b"),
    ],
)
def test_user_and_password_of_a_url_are_taken_out(text, left):
    assert redacted(text) == left


def test_a_short_or_empty_secret_spoils_no_text():
    assert redacted("a key of two letters", "", "a", "key") == "a key of two letters"
