"""CLIP folders of Hugging Face: other names, and settings in a config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert.clip import resized, shapes, sized, with_options
from ovs_jax.convert.family import Conversion, Family, Options
from ovs_jax.convert.hf_clip_settings import (
  check_settings,
  read_settings,
  write_settings,
)
from ovs_jax.convert.rules import Rule, apply, foreign_names, table
from ovs_jax.convert.tensors import Source, Tensors, matching, shapes_of
from ovs_jax.convert.transforms import LINEAR
from ovs_jax.models.clip import ClipConfig

# Indices that older files hold beside the parameters.
CONSTANTS = (r'(text|vision)_model\.embeddings\.position_ids',)
POSITIONS = 'vision_model.embeddings.position_embedding.weight'

_LEGACY_END = 2  # an end token of 2 stands for the largest id, in old configurations

_RULES = """
  logit_scale                                        logit_scale                    same
  text_model.embeddings.token_embedding.weight       text/token_embedding/embedding same
  text_model.embeddings.position_embedding.weight    text/positional_embedding      same
  text_model.final_layer_norm                        text/ln_final                  norm
  vision_model.embeddings.patch_embedding            visual/conv1                filters
  vision_model.embeddings.class_embedding            visual/class_embedding         same
  vision_model.embeddings.position_embedding.weight  visual/positional_embedding    same
  vision_model.pre_layrnorm                          visual/ln_pre                  norm
  vision_model.post_layernorm                        visual/ln_post                 norm
"""
# Of either tower, and of CLIPSeg's decoder.
BLOCK = """
  self_attn            attn      split_attention
  layer_norm<i:1|2>    ln_<i>    norm
  mlp.fc1              c_fc      linear
  mlp.fc2              c_proj    linear
"""


def rules(source: str = '', target: str = '') -> list[Rule]:
  """Returns the table."""
  text, vision = (
    f'{source}{tower}_model.encoder.layers.<layer>.' for tower in ('text', 'vision')
  )
  return [
    *table(_RULES, source, target),
    Rule(f'{source}text_projection.weight', f'{target}text/text_projection', LINEAR),
    Rule(f'{source}visual_projection.weight', f'{target}visual/proj', LINEAR),
    *table(BLOCK, text, f'{target}text/blocks/'),
    *table(BLOCK, vision, f'{target}visual/blocks/'),
  ]


def names(config: ClipConfig) -> list[str]:
  """Returns the names of the tensors that a CLIP of these sizes has."""
  return foreign_names(rules(), shapes(config))


def _layout_rules(model: Mapping[str, Any]) -> list[Rule]:
  depth = model['clip']['prompt_depth']
  if depth:
    raise ValueError(
      f'this CLIP has mask prompts of depth {depth}, which the layout '
      "'hf_clip' cannot hold; use --export=ovseg_clip"
    )
  return rules()


def infer_config(
  source: Source, settings: Mapping[str, Any] | None, options: Options | None = None
) -> ClipConfig:
  """Returns the sizes of a CLIP: shapes first, then config.json.

  Args:
    source: tensors by name.
    settings: the contents of config.json; None takes heads of 64, and the activation
      of `options`.
    options: what the user wants otherwise.

  Raises:
    ValueError: it is not such a CLIP, or has something that we have not.
  """
  options = options or Options()
  needed = (
    'vision_model.embeddings.patch_embedding.weight',
    POSITIONS,
    'visual_projection.weight',
    'text_model.embeddings.position_embedding.weight',
    'text_model.embeddings.token_embedding.weight',
  )
  patches, positions, projection, texts, tokens = shapes_of(
    source, needed, what='a CLIP of Hugging Face'
  )
  config = sized(
    source,
    (patches, positions, texts, tokens),
    towers={k: f'{k}_model.encoder.layers' for k in ('vision', 'text')},
    hidden='mlp.fc1.bias',
    embed_dim=projection[0],
    prompt_depth=0,
    **read_settings(settings, patches[0], tokens[1], options),
  )
  # The end token of CLIP's vocabulary is the largest id, with and without its name.
  if config.end_token in (_LEGACY_END, config.vocab_size - 1):
    config = dataclasses.replace(config, end_token=0)
  return with_options(config, options)


def convert(
  source: Source, settings: Mapping[str, Any] | None, options: Options
) -> Conversion:
  """Converts the tensors of a folder.

  Raises:
    ValueError: it is not such a CLIP; lists everything that does not fit.
  """
  check_settings(settings)
  source = Tensors(source).rename(_plain)
  config = infer_config(source, settings, options)
  constants = matching(source, CONSTANTS)
  held = resized(source.without(constants), config, POSITIONS)
  params = apply(held, rules(), shapes(config), what='CLIP of Hugging Face')
  model = {'model': 'clip', 'clip': dataclasses.asdict(config)}
  return Conversion(model, params, held, tuple(constants))


def _plain(name: str) -> str:
  return name.removeprefix('module.')


def _constant(name: str, model: Mapping[str, Any]) -> np.ndarray:
  c = ClipConfig(**model['clip'])
  vision = name.startswith('vision')
  count = 1 + (c.image_size // c.patch) ** 2 if vision else c.context_length
  return np.arange(count, dtype=np.int64)[None]


def recognise(source: Source, settings: Mapping[str, Any] | None) -> bool:
  """Whether these are the names of Hugging Face's CLIPModel."""
  del settings
  found = {_plain(name) for name in source}
  return {'text_projection.weight', 'visual_projection.weight', POSITIONS} <= found


HF_CLIP = Family(
  clue='text_model.* and vision_model.* in a folder with config.json, which says the '
  'activation',
  model='clip',
  recognise=recognise,
  convert=convert,
  rules=_layout_rules,
  shapes=lambda model: shapes(ClipConfig(**model['clip'])),
  constant=_constant,
  settings=write_settings,
)
