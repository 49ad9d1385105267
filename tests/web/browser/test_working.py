"""A dataset that a worker writes, seen in a browser: asked for, waited for without loading the page, fetched."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.web.client import signed_in
from tuneful.pipeline.work import run_next
from tuneful.web import deciding


def test_a_dataset_is_asked_for_awaited_and_fetched(
    site: Any, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "FEW_TO_WRITE", 0)
    project = site.project(items=1)
    client = signed_in(site, site.rater(project))
    given = client.post(f"/p/{project}/claim", json={}).json()["assignment"]
    ranks = {answer["id"]: n + 1 for n, answer in enumerate(given["answers"])}
    client.post(f"/a/{given['id']}/submit", json={"id": given["id"], "ranks": ranks})

    page.goto(site.labeler(project, role="lead"))
    page.get_by_role("button", name="Write a dataset").click()
    page.get_by_role("progressbar", name="Dataset").wait_for()
    assert run_next(site.store, note=lambda _: None)
    page.get_by_role("status").get_by_text("A job is done: dataset 1").wait_for()
    assert page.get_by_role("progressbar", name="Dataset").count() == 0
    page.get_by_role("link", name="Show it").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="dataset-1.zip").click()
    download.value.save_as(tmp_path / "dataset.zip")
    assert "manifest.json" in zipfile.ZipFile(tmp_path / "dataset.zip").namelist()
