"""What a user does in the UI: fills the Materialize… dialog, and launches a job from its launchpad."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect


def backfill(address: str, page: Page, asset: str, keys: str, *, count: int) -> None:
    """Launch a backfill of a range of `count` partitions."""
    page.goto(f"{address}/assets/{asset}?view=partitions")
    page.get_by_role("button", name="Materialize…").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").first.fill(keys)
    dialog.get_by_role("textbox").first.press("Enter")
    expect(dialog.get_by_text(f"{count} partitions")).to_be_visible()
    dialog.get_by_role("button", name="Launch backfill").click()


def prepare(address: str, page: Page, job: str, config: str) -> None:
    """Go to a job's launchpad, and type a configuration for its only op, a value a line."""
    page.goto(f"{address}/jobs")
    page.get_by_role("link", name=job).click()
    page.get_by_role("tab", name="Launchpad").click()
    editor = page.locator(".CodeMirror").first
    expect(editor).to_contain_text(f"{job}_op")
    editor.click()
    page.keyboard.press("Control+A")
    lines = "".join(f"      {line}\n" for line in config.splitlines())
    page.keyboard.insert_text(f"ops:\n  {job}_op:\n    config:\n{lines}")
    expect(page.get_by_text("No errors")).to_be_visible()
    expect(page.get_by_role("button", name="Launch Run")).to_be_enabled()


def launch(page: Page) -> str:
    """Launch what the launchpad holds, wait for the run's success on its page, and return its id."""
    page.get_by_role("button", name="Launch Run").click()
    expect(page.get_by_text("Success", exact=True)).to_be_visible()
    (run_id,) = re.findall(r"/runs/([0-9a-f-]{36})", page.url)
    return run_id


def metadata(address: str, page: Page, asset: str, key: str) -> dict[str, str]:
    """Return what the Partitions tab shows of a partition's newest materialization."""
    page.goto(f"{address}/assets/{asset}?view=partitions&partition={key}")
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="publication_id", exact=True))
    expect(row.first).to_be_visible()
    table = row.first.locator("xpath=ancestor::table[1]")
    cells = [entry.get_by_role("cell").all_inner_texts() for entry in table.locator("xpath=./tbody/tr").all()]
    return {name: value for name, value, *_ in cells}
