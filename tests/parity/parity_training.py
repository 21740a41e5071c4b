"""Parity of CLIP adaptation: the recipe's loss through our own step and optimizer."""

import dataclasses
import re
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from parity_case import Case, images
from parity_models import load_clip

from configs import common
from ovs_jax.convert import clip as convert_clip
from ovs_jax.convert.rules import Rule, export, targets_of
from ovs_jax.core.schedule import build_schedule
from ovs_jax.core.tree import flatten, match_rules
from ovs_jax.models.clip import Clip, unit
from ovs_jax.ops.regions import patch_mask
from ovs_jax.settings import Settings
from ovs_jax.train.loop import make_step
from ovs_jax.train.recipes.clip_regions import ClipRegions
from ovs_jax.train.state import TrainState, split_params


# The stored pixels are normalised already, and to undo it would cost digits.
@mock.patch('ovs_jax.train.recipes.clip_regions.normalise', lambda image, *_: image)
def clip_adapt_step(case: Case) -> None:
  """Losses, gradients, learning rates and parameters over a few steps."""
  c = case.config
  sizes, params = load_clip(case)
  rules = convert_clip.rules(sizes)
  config = training_config(case, sizes, rules)
  recipe = ClipRegions(Settings.of(config))
  batches = [batch(case, i) for i in range(c['total_steps'])]
  first_step(case, recipe, params, batches[0], rules)
  step, optimizer, trainable = make_step(recipe, Settings.of(config), params)
  state = optimizer.init(split_params(params, trainable)[0])
  state = TrainState(jnp.zeros((), jnp.int32), params, state)
  step = jax.jit(step)
  losses, scales = [], []
  for i, data in enumerate(batches):
    state, metrics = step(state, {}, data)
    losses.append(metrics['loss'])
    scales.append(state.params['logit_scale'])
    if f'param_after_{i + 1}/logit_scale' in case.names('out/'):
      after(case, i + 1, state.params, rules)
  want = case.expected('loss_per_step')
  case.compare('loss at step 0', losses[:1], want[:1], 1e-5, relative=True)
  for i, (got, value) in enumerate(zip(losses[1:], want[1:], strict=True)):
    case.compare(f'loss at step {i + 1}', got, value, 1e-4, relative=True)
  case.close('logit_scale_after_step', scales, 1e-5)
  case.close('lr_per_step', learning_rates(config), 1e-7, relative=True)
  frozen = [k for k in flatten(params) if k not in trainable]
  moved = [k for k in frozen if np.any(flatten(state.params)[k] != flatten(params)[k])]
  case.equal('frozen parameters that moved', len(moved), 0)


def training_config(case: Case, sizes: Any, rules: list[Rule]) -> ConfigDict:
  """Returns the package's default configuration with the case's settings."""
  c = case.config

  def paths(names: list[str]) -> set[str]:
    return {path for name in names for path in targets_of(name, rules)}

  config = common.base('parity', 'train')
  config.clip = ConfigDict(dataclasses.asdict(sizes))
  config.train.steps = c['total_steps']
  config.optimizer.update(
    schedule='warmup_cosine',
    learning_rate=c['lr'],
    weight_decay=c['weight_decay'],
    warmup=c['warmup_steps'],
    b1=c['betas'][0],
    b2=c['betas'][1],
    eps=c['eps'],
  )
  trainable = paths(c['trainable'])
  groups = [(f'^{re.escape(path)}$', 1.0) for path in sorted(trainable)]
  config.optimizer.groups = (*groups, ('.*', None))
  # The default rules for weight decay must pick the tensors that the case names.
  decay = match_rules(
    trainable, config.optimizer.decay, what='decay', allow_unused=True
  )
  decayed = {path for path, share in decay.items() if share}
  wrong = decayed ^ paths(c['weight_decay_names'])
  case.equal('parameters with the wrong weight decay', len(wrong), 0)
  return config


def batch(case: Case, step: int) -> dict[str, Any]:
  """Returns a batch as the recipe reads it, but with pixels that are normalised."""
  image = images(case.given('pixel_values')[step])
  mask = np.ones(image.shape[:3], np.float32)
  if 'pixel_masks' in case.names('in/'):
    mask = case.given('pixel_masks')[step, :, 0].astype(np.float32)
  tokens = jnp.asarray(case.given('input_ids')[step])
  return {'image': jnp.asarray(image), 'mask': jnp.asarray(mask), 'tokens': tokens}


def first_step(
  case: Case, recipe: ClipRegions, params: Any, data: Any, rules: list[Rule]
) -> None:
  """Checks embeddings and gradients before any update."""
  keep = None
  if recipe.clip.prompt_depth:
    keep = patch_mask(data['mask'], recipe.clip.patch)
  model, variables = Clip(recipe.clip), {'params': params}
  image = unit(model.apply(variables, data['image'], keep, method='encode_image'))
  text = unit(model.apply(variables, data['tokens'], method='encode_text'))
  case.close('image_features_normalised_step0', image, 1e-4)
  case.close('text_features_normalised_step0', text, 1e-4)
  logits = jnp.exp(params['logit_scale']) * image @ text.T
  case.close('logits_per_image_step0', logits, 1e-3)
  key = jax.random.key(0)
  grads = jax.jit(jax.grad(lambda p: recipe.loss(p, {}, data, key)[0]))(params)
  names = case.json('out/grad_l2_norm_step0_names_json')
  foreign = export(grads, rules, names)
  norms = [np.linalg.norm(foreign[name]) for name in names]
  case.close('grad_l2_norm_step0_each', norms, 1e-4, relative=True)
  total = np.sqrt(sum(norm**2 for norm in norms))
  case.close('grad_l2_norm_step0_all_trainable', total, 1e-4, relative=True)
  for name in case.names('out/grad_step0/'):
    got, want = foreign[name], case.expected(f'grad_step0/{name}')
    keep_rows = without_key_bias(name, want)
    got, want = got[keep_rows], want[keep_rows]
    case.compare(f'grad_step0/{name}', got, want, 1e-4, relative=True)


def without_key_bias(name: str, value: np.ndarray) -> Any:
  """Selects all but the key's bias, whose gradient is mathematically zero."""
  if not name.endswith('in_proj_bias'):
    return ...
  width = len(value) // 3
  return np.r_[0:width, 2 * width : 3 * width]


def after(case: Case, step: int, params: Any, rules: list[Rule]) -> None:
  """Checks parameters: 99.9 % within 1e-5, the rest within 0.2 of the step size."""
  names = case.names(f'out/param_after_{step}/')
  foreign = export(params, rules, names)
  rate = max(case.expected('lr_per_step')[:step])
  for name in names:
    want = case.expected(f'param_after_{step}/{name}')
    rows = without_key_bias(name, want)
    errors = np.abs(foreign[name][rows] - want[rows])
    most = np.quantile(errors, 0.999, method='lower')
    title = f'param_after_{step}/{name}'
    case.compare(title, most, 0.0, 1e-5)
    case.compare(f'{title} (worst)', errors.max(), 0.0, 0.2 * rate)


def learning_rates(config: ConfigDict) -> list[float]:
  """Returns the schedule's values in double precision."""
  c = config.optimizer
  with jax.enable_x64(True):
    schedule = build_schedule(
      c.schedule,
      c.learning_rate,
      config.train.steps,
      warmup=c.warmup,
      end=c.end,
      power=c.power,
    )
    return [float(schedule(jnp.int64(i))) for i in range(config.train.steps)]
