"""Modes that spare crops, other precisions, and the plain way as their oracle."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import CONFIG, draw_params

from ovs_jax import Segmenter
from ovs_jax.bench import plain
from ovs_jax.core.images import resize_shortest
from ovs_jax.inference.encode import modes_of
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.settings import MODES, Settings
from ovs_jax.models import ovseg
from ovs_jax.models.clip import PRESETS
from ovs_jax.ops.ensemble import combine
from ovs_jax.ops.resize import resize_bilinear

NAMES = tuple(f'thing {i}' for i in range(12))


def settings(mode):
  return Settings(
    shortest=40,
    longest=96,
    templates='single',
    classifier='ensemble',
    weight=0.7,
    mode=mode,
  )


@pytest.fixture(scope='module')
def picture():
  small = np.random.default_rng(3).integers(0, 256, (4, 5, 3)).astype(np.uint8)
  return np.asarray(Image.fromarray(small).resize((70, 50), Image.Resampling.BICUBIC))


def proposals(config, params, image, size):
  """Masks as a trained proposer makes them: clear, few that overlap, some empty."""
  real = ovseg.propose(config, params, image, size)
  q, *shape = real.mask_logits.shape
  coarse = np.random.default_rng(5).normal(-6, 7, (q, 4, 4))
  coarse[::4] = -20
  smooth = resize_bilinear(jnp.asarray(coarse, jnp.float32), tuple(shape))
  draw = np.random.default_rng(6).normal(size=real.embeddings.shape)
  return dataclasses.replace(
    real, mask_logits=smooth, embeddings=jnp.asarray(draw, jnp.float32)
  )


@pytest.fixture(scope='module')
def make():
  params = draw_params()
  text = np.random.default_rng(2).normal(size=(len(NAMES), 64)).astype(np.float32)
  text /= np.linalg.norm(text, axis=1, keepdims=True)

  def call(mode, **options):
    system = OvSegSystem(
      CONFIG, params, settings=settings(mode), propose=proposals, **options
    )
    for name, row in zip(NAMES, text, strict=True):
      system.embedder.rows['single', name] = row
    return Segmenter(system)

  return call


@pytest.fixture(scope='module')
def exact(make, picture):
  segmenter = make('exact')
  return segmenter.segment(segmenter.encode(picture), NAMES)


def test_fast_path_equals_the_plain_one(make, picture, exact):
  model = make('exact')
  small = resize_shortest(picture, shortest=40, longest=96)
  size = jnp.array(small.shape[:2])
  image = jnp.asarray(ovseg.pad_to_bucket(small))
  params = model.system.params
  proposed = proposals(CONFIG, params, image, size)
  slow = plain.encode_image(CONFIG, params, image, size, proposed)
  fast = model.encode(picture).encoded
  valid = np.asarray(slow.valid)
  assert 3 < valid.sum() < len(valid)
  np.testing.assert_array_equal(fast.valid, valid)
  np.testing.assert_allclose(
    np.asarray(fast.regions)[valid],
    np.asarray(slow.regions)[valid],
    rtol=1e-3,
    atol=1e-4,
  )
  logits = ovseg.classify(slow, jnp.asarray(model.embed_names(NAMES)))
  weights = combine(*logits, slow.valid, classifier='ensemble', weight=0.7)
  masks = slow.masks[:, : small.shape[0], : small.shape[1]]
  labels, scores = plain.label_map(weights, masks, picture.shape[:2])
  np.testing.assert_array_equal(exact.labels, labels)
  np.testing.assert_allclose(exact.scores, scores, rtol=1e-3)
  assert len(np.unique(labels)) > 3


def test_filtered_leaves_repeated_proposals_out(make, picture, exact):
  model = make('filtered')
  encoded = model.encode(picture)
  inner = encoded.encoded
  # The second half repeats the masks of the first, and is less of an object.
  half = len(inner.valid) // 2
  again = jnp.concatenate([inner.masks[:half]] * 2)
  valid = jnp.concatenate([inner.valid[:half]] * 2)
  twice = dataclasses.replace(inner, masks=again, valid=valid)
  result = model.segment(dataclasses.replace(encoded, encoded=twice), NAMES)
  assert result.skipped >= 0.5
  for first, second in zip(*np.split(encoded.crops.seen, 2), strict=True):
    assert not (first and second)
  plainly = model.segment(model.encode(picture), NAMES)
  assert plainly.agreement(exact) > 0.5


def test_one_pass_has_the_same_interface(make, picture, exact):
  model = make('one_pass')
  result = model.segment(model.encode(picture), NAMES)
  assert result.labels.shape == exact.labels.shape
  np.testing.assert_allclose(
    result.proposals.proposer, exact.proposals.proposer, rtol=1e-4, atol=1e-6
  )
  assert 0 < model.agreement(picture, NAMES) <= 1


def test_features_are_pooled_where_the_clip_pools_them(make):
  with pytest.raises(ValueError, match="'pooled' pools.*take mode='one_pass'"):
    make('pooled')
  pools = PRESETS['tiny_siglip']
  assert modes_of(CONFIG.clip) == tuple(mode for mode in MODES if mode != 'pooled')
  assert modes_of(pools) == MODES


def test_agreement_counts_pixels(make, picture, exact):
  assert make('exact').agreement(picture, NAMES) == 1
  half = make('exact', dtype='bfloat16')
  agreement = half.agreement(picture, NAMES)
  result = half.segment(half.encode(picture), NAMES)
  assert agreement == pytest.approx((result.labels == exact.labels).mean())
  assert agreement > 0.9
  with pytest.raises(ValueError, match='one picture by the same names'):
    exact.agreement(dataclasses.replace(exact, names=NAMES[1:]))


def test_what_does_not_go_together(make, picture):
  model = make('filtered')
  with pytest.raises(ValueError, match="mode 'exact'"):
    model.segment(model.encode(picture), NAMES, rule='demo')


def test_unknown_names_of_options(make, picture):
  with pytest.raises(ValueError, match='unknown mode.*Did you mean'):
    settings('filterd')
  with pytest.raises(ValueError, match='unknown dtype'):
    make('exact', dtype='float8')
  assert MODES[0] == 'exact'
