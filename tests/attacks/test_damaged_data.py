"""Prepared data of which one file is damaged: read as they were, or one line."""

import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import drawn_photos
import numpy as np
import pytest
import tensorflow as tf

from ovs_jax.core.errors import UserError
from ovs_jax.data import load_dataset, pairs, pipeline
from ovs_jax.data.folder import vocabulary_of
from ovs_jax.settings import Dataset

MASK = np.ones((8, 8, 1), np.uint8)
OTHERS = (None, [], {}, 'x', -1)


def read_pairs(place: pathlib.Path) -> list[Any]:
  builder = pairs.load(place / 'pairs')
  return [x['noun'] for x in pipeline.examples(builder, 'train')]


def read_scenes(place: pathlib.Path) -> list[Any]:
  _, builder = load_dataset(
    Dataset(name='scenes', variant='smoke', data_dir=str(place))
  )
  return [x['image'].sum() for x in pipeline.examples(builder, 'val')]


def read_folder(place: pathlib.Path) -> list[Any]:
  photos, data_dir = str(place / 'photos'), str(place / 'data')
  _, builder = load_dataset(Dataset(name='folder', variant=photos, data_dir=data_dir))
  assert vocabulary_of(builder).names
  return [x['image'].sum() for x in pipeline.examples(builder, 'val')]


def make_pairs(place: pathlib.Path, *broken: bytes) -> None:
  rng = np.random.default_rng(0)
  pixels = [*rng.integers(0, 256, (6, 8, 8, 3), np.uint8), *broken]
  numbers = {'caption': 0, 'proposal': 0, 'score': 0.5, 'cosine': 0.5}
  given = {**numbers, 'box': np.zeros(4, np.int32)}
  found = [
    {**given, 'image_id': str(i), 'image': x, 'mask': MASK, 'noun': str(i)}
    for i, x in enumerate(pixels)
  ]
  pairs.write(place / 'pairs', found, {})


def make_folder(place: pathlib.Path) -> None:
  drawn_photos.write(place / 'photos', 6)


KINDS: dict[str, tuple[Callable[..., None], Callable[..., list[Any]]]] = {
  'pairs': (make_pairs, read_pairs),
  'scenes': (lambda place: None, read_scenes),
  'folder': (make_folder, read_folder),
}


def damages(content: bytes, is_json: bool) -> Iterator[bytes]:
  """What a disk, a copy or an editor may have made of a file."""
  size = len(content)
  yield from (b'', content[: size // 2], bytes(size), content + b'x')
  for i in sorted({0, 3, 8, 12, 20, size // 3, size // 2, size - 2}):
    if i < size:
      yield content[:i] + bytes([content[i] ^ 0x15]) + content[i + 1 :]
  if is_json:
    yield from (b'null', b'[]', b'"x"', b'3', b'{}', b'\xff', b'[' * 100_000)
    for i, (key, value) in enumerate((found := json.loads(content)).items()):
      yield json.dumps({k: v for k, v in found.items() if k != key}).encode()
      # Each key in turn with two of what it should not be.
      others = [x for x in OTHERS if x != value]
      for other in (others[i % len(others)], others[(i + 2) % len(others)]):
        yield json.dumps({**found, key: other}).encode()


@pytest.mark.parametrize('every', [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('kind', KINDS)
def test_any_file(kind: str, every: int, tmp_path: pathlib.Path) -> None:
  make, read = KINDS[kind]
  whole, work = tmp_path / 'whole', tmp_path / 'work'
  whole.mkdir()
  make(whole)
  # Where they are is part of how photographs are stored: always in the same place.
  whole.rename(work)
  expected = read(work)
  shutil.copytree(work, whole)
  refused = 0
  files = [p for p in work.rglob('*') if p.is_file() and 'photos' not in p.parts]
  unread = ('scenes-clip', 'scenes-train', 'folder-train')
  files = [p for p in files if p.stat().st_size and not p.name.startswith(unread)]
  for i, path in enumerate(sorted(files)):
    name = path.relative_to(work)
    found = [*damages(path.read_bytes(), path.suffix == '.json')]
    for content in found[i % every :: every]:
      path.write_bytes(content)
      try:
        assert read(work) == expected, (name, content[:300])
      except (UserError, OSError) as error:
        named = str(work) in str(error) or '/1.0.0' in str(error)
        assert named and len(str(error).splitlines()) == 1, str(error)
        refused += 1
      shutil.rmtree(work)
      shutil.copytree(whole, work)
  assert refused >= 12


@pytest.mark.parametrize(
  ('image', 'reason'),
  [
    (b'', 'Input is empty'),
    (b'\x89PNG\r\n\x1a\n' + bytes(50), 'Invalid PNG. Failed to initialize decoder'),
    (b'GIF', 'Unknown image file format'),
  ],
)
def test_an_image_that_was_broken_before(
  image: bytes, reason: str, tmp_path: pathlib.Path
) -> None:
  make_pairs(tmp_path, image)
  with pytest.raises(UserError, match=f'an image of .*cannot be decoded .{reason}'):
    read_pairs(tmp_path)


def test_other_errors_stay_as_they_are(tmp_path: pathlib.Path) -> None:
  make_pairs(tmp_path)

  def wrong(example: Any) -> Any:
    return {'image': tf.reshape(example['image'], (tf.size(example['noun']) + 4, -1))}

  builder = pairs.load(tmp_path / 'pairs')
  with pytest.raises(tf.errors.InvalidArgumentError, match='multiple of 5'):
    next(pipeline.eval_batches(builder, 'train', [wrong], batch_size=1))
