"""A tiny CLIP and a few mined pairs, made once."""

import pathlib

import numpy as np
import pytest
import tiny_configs
from reuse import once

from ovs_jax.data import pairs
from ovs_jax.settings import Settings
from ovs_jax.train.loop import train


@pytest.fixture(scope='session')
def clip_run(data_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Returns the run of a CLIP trained for four steps."""
  settings = Settings.of(tiny_configs.pretraining(data_dir))
  return once(tmp_path_factory, 'clip_run', lambda place: train(settings, place))


@pytest.fixture(scope='session')
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Returns a mined data set of 24 drawn pairs."""
  rng = np.random.default_rng(0)

  def pair(i: int) -> dict[str, object]:
    h, w = (int(x) for x in rng.integers(9, 30, 2))
    mask = np.zeros((h, w, 1), np.uint8)
    mask[: h // 2, : w // 2] = 255  # leaves whole patches without foreground
    return {
      'image': rng.integers(0, 256, (h, w, 3)).astype(np.uint8),
      'mask': mask,
      'noun': tiny_configs.NOUNS[i % 4],
      'image_id': f'{i}',
      'caption': 0,
      'proposal': i,
      'box': np.array([0, 0, w, h], np.int32),
      'score': np.float32(0.2),
      'cosine': np.float32(0.2),
    }

  drawn = [pair(i) for i in range(24)]
  return once(
    tmp_path_factory, 'pairs', lambda place: pairs.write(place, drawn, {'pairs': 24})
  )
