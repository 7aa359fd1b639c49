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


GATEWAY = "https://gateway.example/t0k3n-of-mine/v1/"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{GATEWAY}binance/trades", "https://gateway.example/***/v1/binance/trades"),
        ("GET /t0k3n-of-mine/v1/exchanges: 404", "GET /***/v1/exchanges: 404"),
        ("no client T0K3N-of-mine", "no client ***"),
        ("https://gateway.example/v1/binance", "https://gateway.example/v1/binance"),
    ],
)
def test_the_token_in_the_path_of_a_configured_address_is_taken_out(text, left):
    assert redacted(text, base=GATEWAY) == left


@pytest.mark.parametrize(
    ("base", "text", "left"),
    [
        (
            "https://host/k1/v1",
            "https://host/k1/v1/x, and k1 in a text",
            "https://host/***/v1/x, and k1 in a text",
        ),
        ("https://host/k1", "https://host/k1?x /k1", "https://host/***?x /***"),
        ("https://host/k1", "https://host/k12/x", "https://host/k12/x"),
        ("https://host/v1/datasets", "https://host/v1/datasets/x", "https://host/v1/datasets/x"),
        ("https://host", "https://host/x", "https://host/x"),
        ("https://me:pass@host/k1/k2", "https://me:pass@host/k1/k2/x", "https://***@host/***/***/x"),
    ],
)
def test_a_short_token_is_taken_out_of_the_address_alone_and_the_vendors_own_path_is_shown(base, text, left):
    assert redacted(text, base=base) == left


def test_a_short_or_empty_secret_spoils_no_text():
    assert redacted("a key of two letters", "", "a", "key") == "a key of two letters"
