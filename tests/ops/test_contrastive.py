"""The chunked loss equals the plain one, on one device and on eight."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ovs_jax.core.sharding import make_mesh
from ovs_jax.ops.contrastive import grouped_contrastive_loss
from ovs_jax.ops.losses import contrastive_loss

COUNT, WIDTH, CHUNK = 96, 20, 16


@pytest.fixture(scope='module')
def batch() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns unit rows, a scale, and eleven nouns; rows of a noun share their text."""
  rng = np.random.default_rng(0)
  groups = rng.integers(0, 11, COUNT)
  image = rng.normal(size=(COUNT, WIDTH))
  text = rng.normal(size=(11, WIDTH))[groups]
  image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
  return (
    jnp.asarray(image, jnp.float32),
    jnp.asarray(text, jnp.float32),
    jnp.float32(9.0),
    jnp.asarray(groups, jnp.int32),
  )


def plain(image: jax.Array, text: jax.Array, scale: jax.Array, groups: jax.Array):
  del groups
  return contrastive_loss(image, text, scale)


def by_hand(batch: tuple[jax.Array, ...], duplicates: str) -> float:
  """The definition, row by row, in double precision."""
  image, text, scale, groups = (np.asarray(x, np.float64) for x in batch)
  e = np.exp(scale * image @ text.T)
  total = 0.0
  for matrix in (e, e.T):
    for i in range(COUNT):
      same = groups == groups[i]
      own = np.arange(COUNT) == i
      among = np.ones(COUNT, bool) if duplicates != 'ignored' else ~same | own
      right = same if duplicates == 'positives' else own
      total -= np.log(matrix[i, right].sum() / matrix[i, among].sum())
  return total / (2 * COUNT)


@pytest.mark.parametrize('duplicates', ['negatives', 'ignored', 'positives'])
@pytest.mark.parametrize('chunk', [0, CHUNK])
def test_it_is_its_definition(batch: tuple, duplicates: str, chunk: int) -> None:
  loss, _ = grouped_contrastive_loss(*batch, duplicates=duplicates, chunk=chunk)
  assert float(loss) == pytest.approx(by_hand(batch, duplicates), rel=1e-5)


def test_positives_never_cost_more_than_negatives(batch: tuple) -> None:
  losses = [by_hand(batch, d) for d in ('negatives', 'ignored', 'positives')]
  assert losses[0] > losses[1] and losses[0] > losses[2]


def test_eight_devices_have_the_loss_and_gradient_of_one(batch: tuple) -> None:
  def gradient(function, *args):
    value = jax.value_and_grad(lambda *a: function(*a)[0], argnums=(0, 1, 2))
    return jax.jit(value)(*args)

  chunked = functools.partial(grouped_contrastive_loss, chunk=CHUNK)
  spread = NamedSharding(make_mesh(-1, 1), PartitionSpec('data'))
  placed = [jax.device_put(x, spread) if x.ndim else x for x in batch]
  loss, grads = gradient(chunked, *placed)
  expected, wanted = gradient(plain, *batch)
  assert float(loss) == pytest.approx(float(expected), rel=1e-6)
  for got, want in zip(grads, wanted, strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)
  accuracy = jax.jit(chunked)(*placed)[1]
  assert float(accuracy) == pytest.approx(float(plain(*batch)[1]))


def test_no_device_holds_all_logits(batch: tuple) -> None:
  mesh = make_mesh(-1, 1)
  spread = NamedSharding(mesh, PartitionSpec('data'))
  placed = [jax.device_put(x, spread) if x.ndim else x for x in batch]

  def shapes(function) -> set[str]:
    value = jax.value_and_grad(lambda *a: function(*a)[0], argnums=(0, 1))
    program = jax.jit(value, out_shardings=(None, (spread, spread)))
    text = program.lower(*placed).compile().as_text()
    return set(re.findall(r'f32\[(\d+,\d+)\]', text))

  rows = COUNT // mesh.size
  chunked = shapes(functools.partial(grouped_contrastive_loss, chunk=CHUNK))
  assert f'{rows},{CHUNK}' in chunked
  for held in (f'{COUNT},{COUNT}', f'{rows},{COUNT}', f'{COUNT},{rows}'):
    assert held not in chunked
  # The plain loss is what the test would notice.
  assert {f'{rows},{COUNT}', f'{COUNT},{COUNT}'} & shapes(plain)


def test_what_cannot_be_is_refused(batch: tuple) -> None:
  with pytest.raises(ValueError, match='96 pairs is no multiple of the 36 columns'):
    grouped_contrastive_loss(*batch, chunk=36)
  with pytest.raises(ValueError, match="Did you mean 'positives'"):
    grouped_contrastive_loss(*batch, duplicates='positive')
