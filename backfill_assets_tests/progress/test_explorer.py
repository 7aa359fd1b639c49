"""The page of the API is made of released files and makes no request to any other server."""

from __future__ import annotations

import hashlib
import re

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from backfill_assets.progress import explorer

RELEASED = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(docs_url=None)
    app.include_router(explorer.explorer_router())
    return TestClient(app)


@pytest.mark.parametrize("name", RELEASED)
def test_the_files_are_the_released_ones(name: str) -> None:
    assert hashlib.sha256((explorer.FOLDER / name).read_bytes()).hexdigest() == RELEASED[name]
    assert "Apache License" in (explorer.FOLDER / "swagger-ui.LICENSE").read_text(encoding="utf-8")[:200]


def test_everything_comes_from_this_server(client: TestClient) -> None:
    answer = client.get("/docs")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    ours = [url for url in loaded if url.startswith("/docs/")]
    assert {url.removeprefix("/docs/") for url in ours} == set(explorer.FILES)
    assert set(loaded) - set(ours) == {"data:,", "/openapi.json"}
    assert {client.get(url).status_code for url in ours} == {200}
    assert client.get("/docs/swagger-ui.LICENSE").status_code == 404
