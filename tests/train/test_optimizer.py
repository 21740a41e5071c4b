"""AdamW over groups, against steps computed by hand."""

import functools
from typing import Any

import numpy as np
import pytest

from ovs_jax.settings import Optimizer
from ovs_jax.train.optimizer import build_optimizer, learning_rate_scales

# Adam divides by 1 - 0.999: float32 keeps four digits of it.
about = functools.partial(pytest.approx, rel=1e-4)
PARAMS = {
  'visual': {'kernel': np.array([2.0]), 'bias': np.array([4.0])},
  'text': {'kernel': np.array([8.0])},
  'logit_scale': np.array(1.0),
}


def settings(**changes: Any) -> Optimizer:
  """Returns the section `optimizer`, with a constant learning rate."""
  constant = {'schedule': 'constant', 'learning_rate': 0.1, 'warmup': 0, 'eps': 0.0}
  return Optimizer(**{**constant, **changes})


def first_step(config: Optimizer, gradient: float) -> dict[str, float]:
  """Returns the change of each trainable parameter in the first step."""
  scales = learning_rate_scales(config, PARAMS)
  optimizer, _ = build_optimizer(config, scales, 10)
  params = {
    'visual/kernel': np.array([2.0], np.float32),
    'visual/bias': np.array([4.0], np.float32),
    'text/kernel': np.array([8.0], np.float32),
    'logit_scale': np.array(1.0, np.float32),
  }
  params = {path: params[path] for path in scales}
  grads = {path: np.full_like(x, gradient) for path, x in params.items()}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  return {path: float(np.squeeze(x)) for path, x in updates.items()}


def test_groups_scale_and_freeze() -> None:
  config = settings(groups=(('bias$', None), ('^visual/', 0.5), ('.*', 1.0)))
  # Adam's first step is the sign of the gradient.
  assert first_step(config, 3.0) == about(
    {'visual/kernel': -0.05, 'text/kernel': -0.1, 'logit_scale': -0.1}
  )


def test_weight_decay_spares_biases_and_the_temperature() -> None:
  config = settings(weight_decay=0.25, groups=(('^visual/', 0.5), ('.*', 1.0)))
  # rate * scale * (sign + decay * parameter)
  assert first_step(config, -3.0) == about(
    {
      'visual/kernel': -0.05 * (-1 + 0.25 * 2),
      'visual/bias': 0.05,
      'text/kernel': -0.1 * (-1 + 0.25 * 8),
      'logit_scale': 0.1,
    }
  )


def test_the_gradient_is_clipped_by_its_global_norm() -> None:
  # Four gradients of 3 have norm 6; clipped to 3 they are 1.5. A large eps shows it.
  config = settings(gradient_clip=3.0, eps=1.5)
  assert first_step(config, 3.0)['text/kernel'] == about(-0.1 * 1.5 / 3.0)
  config = settings(eps=1.5)
  assert first_step(config, 3.0)['text/kernel'] == about(-0.1 * 3.0 / 4.5)


@pytest.mark.parametrize(
  ('groups', 'message'),
  [
    ((('vizual', 1.0), ('.*', 1.0)), 'patterns without a parameter: vizual'),
    ((('.*', 1.0), ('bias$', None)), r'patterns without a parameter: bias\$'),
    ((('visual', 1.0),), 'without a pattern: text/kernel, logit_scale'),
    ((('.*', None),), 'freezes every parameter'),
  ],
)
def test_groups_must_fit(groups: tuple, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    learning_rate_scales(settings(groups=groups), PARAMS)


def test_the_rate_is_that_of_the_schedule() -> None:
  config = settings(schedule='warmup_cosine', warmup=4)
  _, schedule = build_optimizer(config, learning_rate_scales(config, PARAMS), 20)
  assert [float(schedule(s)) for s in (0, 3, 12)] == pytest.approx([0.025, 0.1, 0.05])


def test_muon_treats_stacked_layers_as_matrices_of_their_own() -> None:
  grads = np.random.default_rng(0).normal(size=(3, 6, 2, 2)).astype(np.float32)

  def update(value: np.ndarray, **more: Any) -> np.ndarray:
    config = settings(muon=((r'kernel$', 1),), **more)
    optimizer, _ = build_optimizer(config, {'blocks/kernel': 1.0}, 10)
    params = {'blocks/kernel': np.zeros_like(value)}
    given = {'blocks/kernel': value}
    updates, _ = optimizer.update(given, optimizer.init(params), params)
    return np.asarray(updates['blocks/kernel'])

  together = update(grads, stacked=('^blocks/',))
  for layer, grad in zip(together, grads, strict=True):
    np.testing.assert_allclose(layer, update(grad), rtol=1e-4, atol=1e-6)
  assert not np.allclose(update(grads), together, rtol=0.1)


def test_muon_moves_matrices_along_the_orthogonalised_momentum() -> None:
  config = settings(
    muon=((r'attn/kernel$', 1), (r'bias$', None), (r'kernel$', -1)), learning_rate=0.5
  )
  rng = np.random.default_rng(0)
  shapes = {'conv/kernel': (2, 2, 3, 5), 'attn/kernel': (6, 2, 2), 'conv/bias': (5,)}
  params = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
  grads = {p: rng.normal(size=s).astype(np.float32) for p, s in shapes.items()}
  optimizer, _ = build_optimizer(config, dict.fromkeys(params, 1.0), 10)
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  assert np.asarray(updates['conv/bias']) == about(-0.5 * np.sign(grads['conv/bias']))
  for path, sides in (('conv/kernel', (12, 5)), ('attn/kernel', (6, 4))):
    left, _, right = np.linalg.svd(grads[path].reshape(sides), full_matrices=False)
    got = np.asarray(updates[path]).reshape(sides)
    # The singular vectors stay; the values become alike, of some 0.7 to 1.2 ...
    values = np.diag(left.T @ got @ right.T) / (-0.5 * 0.2 * max(sides) ** 0.5)
    assert 0.6 < values.min() and values.max() < 1.3
    off = left.T @ got @ right.T - np.diag(np.diag(left.T @ got @ right.T))
    assert np.abs(off).max() < 1e-5
    # ... so that the root mean square is about that of Adam's updates.
    assert np.sqrt(np.mean(got**2)) == pytest.approx(0.5 * 0.2, rel=0.25)
