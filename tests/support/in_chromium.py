"""The system's chromium without a window; takes requirements/test_more.txt."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def chromium(*options: str) -> Iterator[Any]:
  """Runs a browser, with options of its command line."""
  from playwright.sync_api import sync_playwright

  path = shutil.which('chromium')
  assert path, 'apt install chromium'
  with sync_playwright() as playwright:
    options = ('--no-sandbox', *options)
    browser = playwright.chromium.launch(executable_path=path, args=list(options))
    yield browser
    browser.close()
