"""Settings of foreign checkpoints, with any value anywhere: read, or refused."""

import copy
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'convert'))

from test_settings import (
  CLIP,
  HF_CLIP,
  OPEN_CLIP_SETTINGS,
  PLAIN,
  SEG,
  SEG_SETTINGS,
)
from tiny_clip import hf_settings

from ovs_jax.convert import SOURCES
from ovs_jax.convert.family import Options

BAD = [None, 0, -1, 1e9, '8', '', [], [[]], {}, {'a': {}}, True, 1.5]
BAD += [float('nan'), float('inf'), 10**400, ['x'] * 50]
FAMILIES = {
  'hf_clip': (
    HF_CLIP,
    hf_settings(PLAIN, hidden_act='quick_gelu', layer_norm_eps=1e-5),
  ),
  'hf_clipseg': (SEG, SEG_SETTINGS),
  'open_clip': (CLIP, OPEN_CLIP_SETTINGS),
}


def places(
  settings: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
  for key, value in settings.items():
    yield (*path, key)
    if isinstance(value, Mapping):
      yield from places(value, (*path, key))
      yield (*path, key, 'no_such_key')


@pytest.mark.parametrize('family', FAMILIES)
def test_every_value(family: str) -> None:
  tensors, settings = FAMILIES[family]
  SOURCES[family].convert(tensors, settings, Options())  # as it is, it is read
  count, refused = 0, 0
  for path in places(settings):
    for value in BAD:
      changed = copy.deepcopy(settings)
      section = changed
      for key in path[:-1]:
        section = section[key]
      section[path[-1]] = value
      count += 1
      try:
        SOURCES[family].convert(tensors, changed, Options())
      except ValueError as error:
        refused += 1
        assert str(error) and len(str(error)) < 2000, (path, value)
      except Exception as error:
        pytest.fail(f'{path} = {value!r:.60}: {error!r}')
  assert refused > count / 3
