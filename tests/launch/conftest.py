"""A fresh checkout for every test of the launch scripts."""

import pathlib

import pytest
from fake_checkout import Checkout


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
  """Has no virtual environment yet."""
  return Checkout(tmp_path)
