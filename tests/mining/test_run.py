"""The mining job on the smoke scenes, with a model whose answers cost nothing."""

import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_ovseg

from configs import scenes
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.types import VOID
from ovs_jax.data import pairs, pipeline
from ovs_jax.mining import run
from ovs_jax.models import ovseg

QUERIES = 4


class Killed(Exception):
  """Stands for the end of a process."""


def encode(config: Any, params: Any, images: Any) -> ovseg.Encoded:
  """Proposes boxes that depend on the picture; the last one is empty."""
  del config, params
  b, h, w = images.shape[:3]
  seeds = np.asarray(images).reshape(b, -1)[:, ::97].sum(axis=1)
  masks = np.zeros((b, QUERIES, h, w), np.float32)
  boxes = np.zeros((b, QUERIES, 4), np.int32)
  regions = np.ones((b, QUERIES, 64), np.float32)
  for i, seed in enumerate(seeds):
    rng = np.random.default_rng(int(seed))
    regions[i] = rng.normal(size=(QUERIES, 64))
    for q in range(QUERIES - 1):
      x0, y0 = rng.integers(0, w // 2, 2)
      x1, y1 = x0 + rng.integers(9, w // 2), y0 + rng.integers(9, h // 2)
      masks[i, q, y0:y1, x0:x1] = 0.9
      boxes[i, q] = x0, y0, x1, y1
  regions = jnp.asarray(regions)
  return ovseg.Encoded(
    embeddings=regions,
    regions=regions,
    masks=jnp.asarray(masks),
    boxes=jnp.asarray(boxes),
    valid=jnp.asarray(masks.any(axis=(2, 3))),
    no_object=jnp.ones((b, 1, 64)),
  )


def embed(
  config: Any, params: Any, prompts: Sequence[Sequence[str]], tokenize: Any
) -> np.ndarray:
  """Gives every sentence a direction of its own."""
  del config, params, tokenize
  rows = [
    np.random.default_rng(list(p[0].encode())).normal(size=64).astype(np.float32)
    for p in prompts
  ]
  return np.stack([row / np.linalg.norm(row) for row in rows])


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
  """Returns an OVSeg directory; its parameters are never used."""
  path = tmp_path_factory.mktemp('model') / 'ovseg'
  save_model(path, {'clip': {'x': np.ones(1)}}, tiny_ovseg.STORED)
  return str(path)


@pytest.fixture
def config(data_dir: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
  """Returns a mining configuration with four chunks of eight images."""
  monkeypatch.setattr(run, '_encode', encode)
  monkeypatch.setattr(run.clip, 'encode_prompts', embed)
  config = scenes.mine(checkpoint)
  config.dataset.update(variant='smoke', data_dir=data_dir)
  config.mining.update(split='train', chunk=8, backend='lexicon', min_score=-1.0)
  return config


def read(directory: pathlib.Path) -> list[dict[str, Any]]:
  return list(pipeline.examples(pairs.load(directory / 'pairs'), 'train'))


def test_a_killed_job_goes_on(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  whole = run.mine(config, tmp_path / 'whole')
  calls: list[int] = []

  def count(*args: Any) -> ovseg.Encoded:
    calls.append(len(args[2]))
    if len(calls) == 2:
      raise Killed
    return encode(*args)

  monkeypatch.setattr(run, '_encode', count)
  with pytest.raises(Killed):
    run.mine(config, tmp_path / 'resumed')
  assert not (tmp_path / 'resumed' / 'pairs').exists()
  sheet = run.mine(config, tmp_path / 'resumed')
  assert calls == [8, 8, 8, 8, 8]  # one chunk, the kill, and the three others
  assert {**sheet, 'seconds': 0} == {**whole, 'seconds': 0}
  expected, got = read(tmp_path / 'whole'), read(tmp_path / 'resumed')
  assert len(got) == sheet['pairs'] > 0
  for one, other in zip(expected, got, strict=True):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
  keys = [(pair['image_id'], pair['noun']) for pair in got]
  assert len(keys) == len(set(keys))


def test_pairs_are_what_the_picture_shows(config: Any, tmp_path: pathlib.Path) -> None:
  sheet = run.mine(config, tmp_path)
  builder = run.load_dataset(config.dataset)[1]
  images = {e['image_id']: e for e in pipeline.examples(builder, 'train')}
  for pair in read(tmp_path):
    source = images[pair['image_id']]
    x0, y0, x1, y1 = pair['box']
    np.testing.assert_array_equal(pair['image'], source['image'][y0:y1, x0:x1])
    assert (pair['mask'] == VOID).all()  # the proposals are full boxes
    assert pair['proposal'] < QUERIES - 1  # never the empty one
    head = pair['noun'].decode().split()[-1]
    assert head[:-1] in source['captions'][pair['caption']].decode().lower()
    assert -1 <= pair['score'] <= 1
  assert sheet['images'] == 32
  assert sheet['images_with_pairs'] <= 32
  assert sum(sheet['top_nouns'].values()) <= sheet['pairs']


def test_the_datasheet_records_the_backend(config: Any, tmp_path: pathlib.Path) -> None:
  returned = run.mine(config, tmp_path)
  sheet = pairs.datasheet(tmp_path / 'pairs')
  assert sheet['nouns']['backend'] == 'lexicon' and sheet['nouns']['version']
  assert sheet['template'] == config.text.train_template
  assert sheet['source'].startswith('scenes/smoke') and sheet['source'].endswith(
    'train'
  )
  assert {k: v for k, v in returned.items() if k != 'seconds'} == json.loads(
    json.dumps(sheet)
  )


def test_a_noun_counts_once_per_image(config: Any, tmp_path: pathlib.Path) -> None:
  miner = run.Miner(config, tiny_ovseg.CONFIG, {'clip': {}})
  captions = [b'a red ball on the grass', b'grass and a red ball', b'a blue box']
  config.mining.captions = 2
  miner = run.Miner(config, tiny_ovseg.CONFIG, {'clip': {}})
  assert miner._nouns({'captions': captions}) == [('red ball', 0), ('grass', 0)]
  config.mining.captions = 3
  miner = run.Miner(config, tiny_ovseg.CONFIG, {'clip': {}})
  assert miner._nouns({'captions': captions})[-1] == ('blue box', 2)


def test_small_proposals_are_not_used(config: Any, tmp_path: pathlib.Path) -> None:
  config.mining.min_area = 128 * 128
  with pytest.raises(ValueError, match=r'no pairs in 32 images: .*min_area \(16384\)'):
    run.mine(config, tmp_path)


def test_pairs_below_the_score_are_left_out(
  config: Any, tmp_path: pathlib.Path
) -> None:
  run.mine(config, tmp_path / 'all')
  scores = sorted(float(pair['score']) for pair in read(tmp_path / 'all'))
  bound = scores[len(scores) // 2]
  config.mining.min_score = bound
  sheet = run.mine(config, tmp_path / 'best')
  kept = sorted(float(pair['score']) for pair in read(tmp_path / 'best'))
  assert kept == [score for score in scores if score >= bound]
  assert sheet['min_score'] == bound
  assert 0 < len(kept) < len(scores)


def test_a_chunk_is_written_whole(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def full(file: Any, **arrays: Any) -> None:
    with zipfile.ZipFile(file, 'w'):
      raise OSError(28, 'No space left on device')

  monkeypatch.setattr(run.np, 'savez', full)
  with pytest.raises(OSError, match='No space left'):
    run.mine(config, tmp_path)
  assert list((tmp_path / 'chunks').iterdir()) == []
