"""Parity with Hugging Face's CLIP, and where in a tower two computations part."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from parity_case import Case, deviation, images

from ovs_jax.convert import hf_clip
from ovs_jax.convert.family import Options
from ovs_jax.models.clip import Clip, ClipConfig, unit
from ovs_jax.models.clip_blocks import ClipBlock

FEATURES = 1e-5  # of the largest value
LOGITS = 1e-4  # of the largest value


def load(case: Case, image_size: int) -> tuple[ClipConfig, Any]:
  """Converts the case's CLIP for images of this size."""
  settings = {
    'text_config': case.config['text'],
    'vision_config': case.config['vision'],
  }
  options = Options(image_size=image_size)
  conversion = hf_clip.HF_CLIP.convert(case.weights(), settings, options)
  config = ClipConfig.from_dict(conversion.model['clip'])
  case.equal('embed_dim', float(config.embed_dim), float(case.config['projection_dim']))
  return config, jax.tree.map(jnp.asarray, conversion.params)


def clip(case: Case) -> None:
  """Features and logits; images of another size than the model's, too."""
  image = jnp.asarray(images(case.given('pixel_values')))
  config, params = load(case, image.shape[1])
  model, variables = Clip(config), {'params': params}
  features = model.apply(variables, image, method='encode_image')
  case.close('image_features', features, FEATURES, relative=True)
  outputs = case.names('out/')
  if 'text_features' in outputs:
    tokens = jnp.asarray(case.given('input_ids'))
    text = model.apply(variables, tokens, method='encode_text')
    case.close('text_features', text, FEATURES, relative=True)
    logits = jnp.exp(params['logit_scale']) * unit(features) @ unit(text).T
    case.close('logits_per_image', logits, LOGITS, relative=True)
  states = vision_states(config, params, image)
  wanted = {f'vision_hidden_{i}': state for i, state in enumerate(states)}
  wanted |= {'embeddings': states[0], 'last': states[-1]}
  for name, state in wanted.items():
    if name in outputs:
      case.close(name, state, FEATURES, relative=True)


def vision_states(config: ClipConfig, params: Any, image: Any) -> list[Any]:
  """Returns the vision tower's tokens after the first norm and after each block."""
  _, state = Clip(config).apply(
    {'params': params},
    image,
    method='encode_image',
    capture_intermediates=lambda module, _: module.name == 'ln_pre',
    mutable=['intermediates'],
  )
  (x,) = state['intermediates']['visual']['ln_pre']['__call__']
  return [x, *run_blocks(config, params['visual']['blocks'], x)]


def run_blocks(config: ClipConfig, blocks: Any, x: Any) -> list[Any]:
  """Returns what each block of the vision tower gives, one after the other."""
  block = ClipBlock(config.vision)
  states = []
  for i in range(config.vision_layers):
    one = {'params': jax.tree.map(lambda leaf, i=i: leaf[i], blocks)}
    x = block.apply(one, x)
    states.append(x)
  return states


def compare_blocks(config: ClipConfig, params: Any, states: list[np.ndarray]) -> str:
  """Finds the block that is wrong: a table of errors, of each alone and in sequence.

  Args:
    config: of the CLIP.
    params: all its parameters.
    states: the reference's tokens before the first block and after each one.
  """
  blocks = params['visual']['blocks']
  given = [jnp.asarray(state) for state in states]
  carried = run_blocks(config, blocks, given[0])
  rows = ['block  carried     own']
  for i in range(config.vision_layers):
    rest = dataclasses.replace(config, vision_layers=1)
    one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], blocks)
    (own,) = run_blocks(rest, one, given[i])
    errors = [deviation(x, states[i + 1], relative=True) for x in (carried[i], own)]
    rows.append(f'{i:>5}  {errors[0]:.2e}  {errors[1]:.2e}')
  return '\n'.join(rows)
