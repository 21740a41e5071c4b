"""A small trainer in place of google-research's Scenic."""

import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest

STAND_IN = pathlib.Path(__file__).parent / 'stand_in'


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
  """Returns what drops the imported `scenic`, and drops it at the end."""

  def drop() -> None:
    for name in [n for n in sys.modules if n.split('.')[0] == 'scenic']:
      del sys.modules[name]

  drop()
  yield drop
  drop()


@pytest.fixture
def stand_in(
  forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
  """Puts the stand-in on the path."""
  import optax

  monkeypatch.setattr(optax, 'ovs_jax', None, raising=False)  # taken away again
  monkeypatch.syspath_prepend(str(STAND_IN))
  yield
