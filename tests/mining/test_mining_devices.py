"""A real OVSeg that proposes on all devices of a host what it proposes on one."""

import functools
import pathlib
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_ovseg

from configs import scenes
from ovs_jax.core import workers
from ovs_jax.core.checkpoint import save_model
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.mining import candidates, miner
from ovs_jax.settings import Settings


@pytest.fixture(scope='module')
def examples(data_dir: str) -> list[dict[str, Any]]:
  config = scenes.mine('')
  config.dataset.update(variant='smoke', data_dir=data_dir)
  _, builder = load_dataset(Settings.of(config).dataset)
  return list(pipeline.examples(builder, 'train'))[:8]


@pytest.fixture
def config(data_dir: str, tmp_path: pathlib.Path) -> Any:
  save_model(tmp_path / 'model', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  config = scenes.mine(str(tmp_path / 'model'))
  config.dataset.update(variant='smoke', data_dir=data_dir)
  config.mining.update(backend='lexicon', min_score=-1.0, shortest=40, longest=96)
  return config


@functools.partial(jax.jit, static_argnums=0)
def cheap(config: Any, params: Any, image: Any, size: Any) -> Any:
  """As `candidates.propose_masks`, for a program that compiles at once."""
  del config, size
  y, x = (jnp.arange(n) for n in image.shape[:2])
  bright = image.mean(axis=2) > jnp.mean(image)
  masks = jnp.stack([bright & (y < 20)[:, None], bright & (x < 30)[None]])
  weight = jax.tree.leaves(params)[0].reshape(-1)[:2]
  areas = masks.sum(axis=(1, 2))
  rows = jnp.sin(jnp.outer(areas, 1.0 + jnp.arange(64)) + weight[:, None])
  return masks, areas, jnp.array([[0, 0, 30, 20]] * 2), rows


@pytest.mark.parametrize(
  'masks',
  [
    'cheap',
    pytest.param('proposals', marks=pytest.mark.slow),
    pytest.param('truth', marks=pytest.mark.slow),
  ],
)
def test_every_device_works_and_the_pairs_are_those_of_one(
  config: Any,
  examples: list[dict[str, Any]],
  masks: str,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  """Eight images are under way before any is done: each waits for seven others."""
  name = 'embed_padded' if masks == 'truth' else 'propose_masks'
  config.mining.masks = 'truth' if masks == 'truth' else 'proposals'
  program = cheap if masks == 'cheap' else getattr(candidates, name)
  placed: list[set[Any]] = []
  together = threading.Barrier(8, timeout=200)

  def noted(*args: Any) -> Any:
    out = program(*args)
    placed.append({d for x in jax.tree.leaves(out) for d in x.devices()})
    together.wait()
    return out

  monkeypatch.setattr(candidates, name, noted)
  with monkeypatch.context() as patch:
    patch.setattr(workers, 'own_devices', jax.local_devices)
    found, notes = miner.Miner(Settings.of(config)).pairs(examples)
  assert len(placed) == 8 and all(len(devices) == 1 for devices in placed)
  assert set.union(*placed) == set(jax.local_devices())
  monkeypatch.setattr(candidates, name, program)
  expected, of_one = miner.Miner(Settings.of(config)).pairs(examples)
  assert notes == of_one and len(found) == len(expected) > 4
  for one, other in zip(found, expected, strict=True):
    for key in one:
      np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_networks_compute_in_what_is_asked_for(
  config: Any, examples: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
  given = []

  def noted(model: Any, *args: Any) -> Any:
    given.append({model.clip.dtype, model.proposer.dtype})
    return cheap(model, *args)

  monkeypatch.setattr(candidates, 'propose_masks', noted)
  for dtype, expected in (('', 'float32'), ('bfloat16', 'bfloat16')):
    config.mining.dtype = dtype
    miner.Miner(Settings.of(config)).pairs(examples[:1])
    assert given.pop() == {expected}
  config.mining.dtype = 'float8'
  with pytest.raises(ValueError, match=r"config.mining.dtype is 'float8'"):
    miner.Miner(Settings.of(config))
