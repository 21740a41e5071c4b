"""Activations on disk: the same training, and what happens to damaged files."""

import pathlib
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.train.activations import ActivationCache, network_digest

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)


def make(directory, calls, *, dtype=jnp.bfloat16, examples=5):
  def encode(images):
    if isinstance(images, np.ndarray):
      calls.append(len(images))
    x = jnp.asarray(images, jnp.float32)
    return {'mean': x.mean(axis=(1, 2)), 'half': x[:, 0].astype(dtype)}

  return ActivationCache(
    directory, identity='net', encode=encode, examples=examples, shape=(2, 4, 4, 3)
  )


def test_pictures_are_computed_once(tmp_path):
  calls = []
  first = make(tmp_path, calls)(IMAGES)
  assert calls == [2, 2, 2]  # always whole batches
  np.testing.assert_array_equal(
    first['mean'], IMAGES.mean(axis=(1, 2), dtype=np.float32)
  )
  assert first['half'].dtype == jnp.bfloat16
  again = make(tmp_path, calls)(IMAGES[::-1])
  assert calls == [2, 2, 2]
  for name, value in again.items():
    np.testing.assert_array_equal(value[::-1], first[name])


@pytest.mark.parametrize('damage', ['cut', 'other', 'flipped'])
def test_damaged_files_are_computed_again(tmp_path, damage):
  calls = []
  cache = make(tmp_path, calls)
  first = cache(IMAGES[:2])
  path = sorted(pathlib.Path(tmp_path).rglob('*.npz'))[0]
  data = bytearray(path.read_bytes())
  if damage == 'cut':
    path.write_bytes(data[:40])
  elif damage == 'other':
    np.savez(path, mean=np.zeros(3, np.uint8), half=np.zeros(1, np.uint8))
  else:
    place = data.index(b'mean.npy') + 8 + 128 + 2  # among the numbers
    data[place] ^= 255
    path.write_bytes(data)
  with pytest.warns(RuntimeWarning, match='is damaged .* it is computed again'):
    second = cache(IMAGES[:2])
  for name, value in second.items():
    np.testing.assert_array_equal(value, first[name])
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    cache(IMAGES[:2])


def test_a_full_disk_is_told_at_once(tmp_path):
  with pytest.raises(OSError, match='set config.slots.cache to another directory'):
    make(tmp_path, [], examples=10**15)


def test_another_network_has_another_name():
  params = {'a': {'b': np.zeros(3, np.float32)}}
  one = network_digest(params, {'x': 1})
  assert one == network_digest(params, {'x': 1})
  assert one != network_digest({'a': {'b': np.ones(3, np.float32)}}, {'x': 1})
  assert one != network_digest(params, {'x': 2})
