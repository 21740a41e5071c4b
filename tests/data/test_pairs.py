"""Mined pairs on disk: nothing is lost, blurred or left half written."""

import pathlib
from typing import Any

import numpy as np
import pytest

from ovs_jax.data import pairs, pipeline

FIELDS = sorted(pairs.features())


def draw(count: int) -> list[dict[str, Any]]:
  """Returns pairs of random size and content."""
  rng = np.random.default_rng(0)
  found = []
  for i in range(count):
    h, w = (int(x) for x in rng.integers(1, 20, 2))
    found.append(
      {
        'image': rng.integers(0, 256, (h, w, 3)).astype(np.uint8),
        'mask': (255 * rng.integers(0, 2, (h, w, 1))).astype(np.uint8),
        'noun': f'crème brûlée {i}',
        'image_id': f'train_{i:05d}',
        'caption': i % 3,
        'proposal': i,
        'box': np.array([i, 2, i + w, 2 + h], np.int32),
        'score': np.float32(rng.normal()),
        'cosine': np.float32(rng.normal()),
      }
    )
  return found


def test_what_is_written_is_read(tmp_path: pathlib.Path) -> None:
  given = draw(5)
  pairs.write(tmp_path / 'pairs', given, {'pairs': 5, 'nouns': {'backend': 'x'}})
  assert pairs.datasheet(tmp_path / 'pairs') == {'pairs': 5, 'nouns': {'backend': 'x'}}
  got = list(pipeline.examples(pairs.load(tmp_path / 'pairs'), 'train'))
  assert len(got) == 5
  assert pairs.nouns(tmp_path / 'pairs') == [pair['noun'] for pair in given]
  for one, other in zip(given, got, strict=True):
    assert set(one) == set(other)
    np.testing.assert_array_equal(other['image'], one['image'])
    np.testing.assert_array_equal(other['mask'], one['mask'][..., 0])
    np.testing.assert_array_equal(other['box'], one['box'])
    for name in ('noun', 'image_id'):
      assert other[name].decode('utf-8') == one[name]
    for name in ('caption', 'proposal', 'score', 'cosine'):
      assert other[name] == one[name]


def test_records_are_the_same_in_every_process() -> None:
  """Their fields are in order, and not as a hash with the process's seed has them."""
  record = pairs.serialize(draw(1)[0])
  place = {n: record.index(b'\n' + bytes([len(n)]) + n.encode()) for n in FIELDS}
  # Programs differ in whether "image" or "image_id" comes first.
  order = [name.removesuffix('_id') for name in sorted(FIELDS, key=place.get)]
  assert order == sorted(order)


def test_writing_again_replaces(tmp_path: pathlib.Path) -> None:
  for count in (3, 2):
    pairs.write(tmp_path / 'pairs', draw(count), {})
  builder = pairs.load(tmp_path / 'pairs')
  assert builder.info.splits['train'].num_examples == 2
  assert list(tmp_path.iterdir()) == [tmp_path / 'pairs']


def test_a_failure_leaves_nothing(tmp_path: pathlib.Path) -> None:
  def broken() -> Any:
    yield from draw(2)
    raise KeyError('stop')

  with pytest.raises(Exception, match='stop'):
    pairs.write(tmp_path / 'pairs', broken(), {})
  assert list(tmp_path.iterdir()) == []


def test_missing_pairs_say_how_to_make_them(tmp_path: pathlib.Path) -> None:
  with pytest.raises(FileNotFoundError, match='no mined pairs; .*scenes.py:mine'):
    pairs.load(tmp_path)
