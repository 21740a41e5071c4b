"""Mined pairs against the truth of the scenes."""

import pathlib

import numpy as np
import pytest
import tiny_ovseg

from ovs_jax.core.checkpoint import save_model
from ovs_jax.mining import quality
from ovs_jax.settings import Settings


@pytest.fixture
def config(data_dir: str, tmp_path: pathlib.Path) -> Settings:
  """Returns the mining of the smoke scenes; the networks are never run."""
  save_model(tmp_path / 'model', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  return quality.settings(str(tmp_path / 'model'), data_dir, 'smoke')


def test_an_oracle_shows_what_nouns_and_books_lose(config: Settings) -> None:
  clean = quality.evaluate(config, oracle=True, noise=0.0, limit=0)
  assert clean['precision'] >= 0.95
  assert clean['recall'] >= 0.90
  assert clean['pairs'] > 30
  # The oracle pairs only what is there: noise costs it pairs, not precision.
  noisy = quality.evaluate(config, oracle=True, noise=1.0, limit=0)
  assert noisy['precision'] >= 0.95 and noisy['pairs'] < clean['pairs']


def test_precision_and_recall_by_hand() -> None:
  label = np.full((4, 4), 255, np.uint8)
  label[:2], label[2] = 0, 1  # red circle, red square
  pairs = [
    _pair('red ball', [0, 0, 4, 2]),  # right, by a synonym
    _pair('red square', [0, 0, 4, 3]),  # mostly red circle
    _pair('dragon', [0, 2, 4, 3]),  # no class
  ]
  scores = quality.measure(pairs, {'a': label}, {'a': {0, 1, 5}}, min_area=4)
  assert scores == {'pairs': 3, 'precision': 1 / 3, 'recall': 1 / 2}
  scores = quality.measure(pairs, {'a': label}, {'a': {0, 1, 5}}, min_area=8)
  assert scores['recall'] == 1


def _pair(noun: str, box: list[int]) -> dict[str, object]:
  x0, y0, x1, y1 = box
  mask = np.full((y1 - y0, x1 - x0, 1), 255, np.uint8)
  return {'noun': noun, 'image_id': 'a', 'box': np.array(box), 'mask': mask}


def test_captions_name_classes() -> None:
  found = quality.mentions(['A crimson ball on the lawn', 'some pebbles'])
  names = quality.class_of_names()
  assert found == {names['red circle'], names['grass'], names['gravel']}
  assert quality.mentions(['a blue sky']) == {names['sky']}


def test_captions_are_exchanged() -> None:
  captions = {str(i): [f'caption {i}'] for i in range(10)}
  given = quality.exchange_captions(captions, 0.4, np.random.default_rng(0))
  changed = [name for name in captions if given[name] != captions[name]]
  assert len(changed) == 4
  assert sorted(map(tuple, given.values())) == sorted(map(tuple, captions.values()))
