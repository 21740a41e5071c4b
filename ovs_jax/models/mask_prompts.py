"""Mask prompts by themselves: what prompt tuning changes, and nothing else of a CLIP.

A directory of prompts is a checkpoint of the kind 'prompts': a few MB that fit any CLIP
with the same patches and width, whoever trained it.
"""

import dataclasses
import math

import numpy as np

from ovs_jax.core.checkpoint import load_config, load_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path
from ovs_jax.core.types import Params
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.ovseg import OvSegConfig

KIND = 'prompts'
PATHS = ('visual/mask_prompt', 'logit_scale')  # all that such a checkpoint may hold


def add_prompts(
  config: ClipConfig, params: Params, directory: Path
) -> tuple[ClipConfig, Params]:
  """Returns a CLIP with the prompts of `directory` in place of its own, if any.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's; they are not changed, and all but the prompts (and a
      temperature that was trained with them) are in the result as they are.
    directory: of prompts, or of the run that trained them.

  Raises:
    FileNotFoundError: there is no such directory.
    ValueError: it holds something else, or prompts for another grid or width, or of
      more layers than this CLIP has.
  """
  if load_config(directory, what='prompts').get('model') == 'clip':
    raise UserError(
      f'{directory} holds a whole CLIP and not prompts alone: name it as the CLIP '
      '(config.init.clip), without config.init.prompts or --prompts; or train with '
      "config.adapt.store='prompts'"
    )
  stored, _ = load_model(directory, kind=KIND, what='prompts')
  prompts = np.asarray(stored['visual']['mask_prompt'])
  depth, *sizes = prompts.shape
  grid = config.image_size // config.patch
  problems = []
  if sizes != [grid * grid, config.vision_width]:
    side = math.isqrt(sizes[0])
    problems.append(
      f'they are for a grid of {side}x{side} patches and a width of {sizes[1]}, the '
      f'CLIP has {grid}x{grid} and {config.vision_width}'
    )
  if depth - 1 > config.vision_layers:
    problems.append(
      f'they follow {depth - 1} blocks, the CLIP has {config.vision_layers}'
    )
  if problems:
    raise UserError(
      f'the prompts in {directory} do not fit this CLIP: {"; ".join(problems)}. Take '
      'the CLIP that they were trained with, or one of the same size'
    )
  visual = {**params['visual'], 'mask_prompt': prompts}
  config = dataclasses.replace(config, prompt_depth=depth)
  scale = {k: v for k, v in stored.items() if k == 'logit_scale'}
  return config, {**params, **scale, 'visual': visual}


def add_to_ovseg(
  config: OvSegConfig, params: Params, directory: Path | None
) -> tuple[OvSegConfig, Params]:
  """Puts the prompts of `directory`, if one is given, into the CLIP of an OVSeg."""
  if not directory:
    return config, params
  clip, tower = add_prompts(config.clip, params['clip'], directory)
  return dataclasses.replace(config, clip=clip), {**params, 'clip': tower}


def without_prompts(params: Params) -> Params:
  """Returns a CLIP's parameters without mask prompts, for networks that use none."""
  visual = {k: v for k, v in params['visual'].items() if k != 'mask_prompt'}
  return {**params, 'visual': visual}
