"""ConvNeXts of timm, which open_clip's checkpoints hold as `visual.trunk.*`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovs_jax.convert.clip_sizes import tower_sizes
from ovs_jax.convert.rules import Rule, table
from ovs_jax.convert.tensors import Source, count, shapes_of
from ovs_jax.core.errors import UserError
from ovs_jax.models.clip_config import STAGES, STRIDE, ClipConfig, ImageTower

KERNEL = 'visual.trunk.stem.0.weight'
_RULES = """
  trunk.stem.0     conv1    conv
  trunk.stem.1     ln_pre   norm
  trunk.head.norm  ln_post  norm
"""
_PROJECTIONS = {
  'matrix': 'head.proj c_proj matrix',
  'mlp': 'head.mlp.fc1 c_fc linear head.mlp.fc2 c_proj matrix',
}
_STAGE = """
  downsample.0             ln                 norm
  downsample.1             conv               conv
  blocks.<layer>.conv_dw   blocks/conv        conv
  blocks.<layer>.norm      blocks/ln          norm
  blocks.<layer>.mlp.fc1   blocks/c_fc        linear
  blocks.<layer>.mlp.fc2   blocks/c_proj      linear
  blocks.<layer>.gamma     blocks/layer_scale same
"""


def rules(tower: ImageTower, source: str, target: str) -> list[Rule]:
  """Returns the table of a tower, with these in front of names and paths."""
  stage = f'{source}trunk.stages.<stage>.', f'{target}stage_<stage>/'
  return [
    *table(_RULES + _PROJECTIONS[tower.projection], source, target),
    *table(_STAGE, *stage),
  ]


def sized(source: Source, told: Mapping[str, Any], side: Any) -> ClipConfig:
  """Returns the sizes of a CLIP of open_clip with such a tower.

  Args:
    source: tensors by name.
    told: the fields of the configuration that are known.
    side: of pictures in pixels, as settings say it: no shape tells.

  Raises:
    ValueError: tensors are missing, or pictures have another side than ours can.
  """
  if type(side) is not int or side % STRIDE:
    raise UserError(
      f'vision_cfg.image_size of open_clip_config.json is {side!r}; of a ConvNeXt it '
      f'is a multiple of {STRIDE}'
    )
  names = ('visual.trunk.head.norm.weight', 'text_projection')
  names = (*names, 'positional_embedding', 'token_embedding.weight')
  found = shapes_of(source, [*names], what='a CLIP of open_clip with a ConvNeXt')
  (width,), (_, joint), (context, _), (vocabulary, text_width) = found
  blocks = 'visual.trunk.stages.{}.blocks.'
  stages = tuple(count(source, blocks.format(i)) for i in range(STAGES))
  kind = dataclasses.replace(told['image_tower'], stages=stages)
  text = tower_sizes(
    source, 'text', text_width, 'transformer.resblocks', 'mlp.c_fc.bias'
  )
  sizes = {
    'embed_dim': joint,
    'image_size': side,
    'patch': STRIDE,
    'vision_width': width,
    'vision_layers': sum(stages),
    'context_length': context,
    'vocab_size': vocabulary,
    'prompt_depth': 0,
    'dtype': 'float32',
    'remat': False,
    'unroll': 1,
  }
  return ClipConfig(**{**sizes, **text, **told, 'image_tower': kind})
