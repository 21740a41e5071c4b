"""CLIP checkpoints of OpenAI, open_clip and OVSeg, which name their tensors alike."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ovs_jax.convert.rules import (
  CONV,
  SAME,
  Rule,
  apply,
  attention_rules,
  linear_rules,
  norm_rules,
)
from ovs_jax.models.clip import ClipConfig, init_clip

HEAD_SIZE = 64  # of every published CLIP: heads = width / 64

# Where CLIP sits inside other checkpoints: a distributed run's, and OVSeg's.
PREFIXES = ('module.', 'clip_adapter.clip_model.')

# Entries of OpenAI's archives that hold no parameter.
CONSTANTS = (r'input_resolution', r'context_length', r'vocab_size')


def _block_rules(source: str, target: str) -> list[Rule]:
  block = rf'{source}\.resblocks\.(?P<layer>\d+)'
  return [
    *attention_rules(rf'{block}\.attn', f'{target}/attn'),
    *norm_rules(rf'{block}\.(?P<norm>ln_[12])', rf'{target}/\g<norm>'),
    *linear_rules(rf'{block}\.mlp\.(?P<part>c_fc|c_proj)', rf'{target}/\g<part>'),
  ]


def rules(config: ClipConfig) -> list[Rule]:
  """Returns the table for a CLIP with or without mask prompts."""
  table = [
    Rule(r'logit_scale', 'logit_scale', SAME),
    Rule(r'(positional_embedding|text_projection)', r'text/\1', SAME),
    Rule(r'token_embedding\.weight', 'text/token_embedding/embedding', SAME),
    *norm_rules(r'ln_final', 'text/ln_final'),
    *_block_rules('transformer', 'text/blocks'),
    Rule(r'visual\.conv1\.weight', 'visual/conv1/kernel', CONV),
    Rule(r'visual\.(class_embedding|positional_embedding|proj)', r'visual/\1', SAME),
    *norm_rules(r'visual\.(?P<norm>ln_pre|ln_post)', r'visual/\g<norm>'),
    *_block_rules(r'visual\.transformer', 'visual/blocks'),
  ]
  if config.prompt_depth:
    table.append(Rule(r'visual\.mask_embedding', 'visual/mask_prompt', SAME))
  return table


def strip_prefix(source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns CLIP's tensors by their plain names.

  A prefix of a distributed run is cut off where all names have it; of a whole OVSeg
  model the part that is CLIP is taken.
  """
  tensors = dict(source)
  for prefix in PREFIXES:
    inside = {
      k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)
    }
    whole_model = prefix == 'clip_adapter.clip_model.'
    if inside and (whole_model or len(inside) == len(tensors)):
      tensors = inside
  # A depth of 0 leaves an empty tensor behind in OVSeg's files.
  empty = [k for k, v in tensors.items() if k == 'visual.mask_embedding' and not v.size]
  return {k: v for k, v in tensors.items() if k not in empty}


def infer_config(source: Mapping[str, np.ndarray]) -> ClipConfig:
  """Returns the sizes of a CLIP from the shapes of its tensors.

  Raises:
    ValueError: it is not a CLIP with a vision transformer.
  """
  source = strip_prefix(source)
  needed = (
    'visual.conv1.weight',
    'visual.positional_embedding',
    'visual.proj',
    'positional_embedding',
    'token_embedding.weight',
  )
  missing = [name for name in needed if name not in source]
  if missing or source['visual.conv1.weight'].ndim != 4:
    raise ValueError(
      f'not a CLIP checkpoint with a vision transformer: {", ".join(missing)} missing '
      f'from its {len(source)} tensors. OpenAI, open_clip and OVSeg names are read'
    )
  width, _, patch, _ = source['visual.conv1.weight'].shape
  grid = math.isqrt(source['visual.positional_embedding'].shape[0] - 1)
  vocab_size, text_width = source['token_embedding.weight'].shape
  prompts = source.get('visual.mask_embedding')
  return ClipConfig(
    embed_dim=source['visual.proj'].shape[1],
    image_size=grid * patch,
    patch=patch,
    vision_width=width,
    vision_layers=_count_layers(source, r'visual\.transformer'),
    vision_heads=max(width // HEAD_SIZE, 1),
    text_width=text_width,
    text_layers=_count_layers(source, 'transformer'),
    text_heads=max(text_width // HEAD_SIZE, 1),
    context_length=source['positional_embedding'].shape[0],
    vocab_size=vocab_size,
    prompt_depth=0 if prompts is None else prompts.shape[0],
    dtype='float32',
    remat=False,
    unroll=1,
  )


def _count_layers(source: Mapping[str, np.ndarray], tower: str) -> int:
  pattern = re.compile(rf'{tower}\.resblocks\.(\d+)\.')
  found = (pattern.match(name) for name in source)
  return len({match[1] for match in found if match})


def shapes(config: ClipConfig) -> dict[str, Any]:
  """Returns the shapes of our parameters, without computing any."""
  return jax.eval_shape(lambda key: init_clip(config, key), jax.random.key(0))


def convert(
  source: Mapping[str, np.ndarray], config: ClipConfig | None = None
) -> tuple[ClipConfig, dict[str, Any]]:
  """Returns the configuration and the parameters of a foreign CLIP.

  Args:
    source: tensors by name, of a CLIP alone or of a whole OVSeg model.
    config: its sizes; None infers them.

  Raises:
    ValueError: it is not such a CLIP; lists everything that does not fit.
  """
  source = strip_prefix(source)
  config = config or infer_config(source)
  params = apply(
    source, rules(config), shapes(config), what='CLIP checkpoint', ignore=CONSTANTS
  )
  return config, params
