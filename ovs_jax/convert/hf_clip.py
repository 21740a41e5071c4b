"""CLIP folders of Hugging Face: other names, and settings in a config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert.clip import ClipFamily, resized, shapes, sized
from ovs_jax.convert.family import Conversion, Options, Settings
from ovs_jax.convert.hf_clip_settings import (
  check_settings,
  read_settings,
  write_settings,
)
from ovs_jax.convert.rules import Rule, apply, foreign_names, table
from ovs_jax.convert.tensors import Source, Tensors, matching
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


def infer_config(
  source: Source, settings: Settings, options: Options | None = None
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
  text = 'text_model.embeddings'
  config = sized(
    source,
    kernel='vision_model.embeddings.patch_embedding.weight',
    tables=(
      POSITIONS,
      f'{text}.position_embedding.weight',
      f'{text}.token_embedding.weight',
    ),
    embed=('visual_projection.weight', 0),
    blocks={tower: f'{tower}_model.encoder.layers' for tower in ('vision', 'text')},
    hidden='mlp.fc1.bias',
    what='a CLIP of Hugging Face',
    **read_settings(settings, options or Options()),
  )
  # The end token of CLIP's vocabulary is the largest id, with and without its name.
  if config.end_token in (_LEGACY_END, config.vocab_size - 1):
    config = dataclasses.replace(config, end_token=0)
  return config


class _HfClip(ClipFamily):
  """Hugging Face's CLIPModel."""

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By its projections."""
    found = {name.removeprefix('module.') for name in source}
    return {'text_projection.weight', 'visual_projection.weight', POSITIONS} <= found

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Takes what the shapes do not tell from config.json."""
    check_settings(settings)
    source = Tensors(source).rename(lambda name: name.removeprefix('module.'))
    config = infer_config(source, settings, options)
    constants = matching(source, CONSTANTS)
    held = resized(source.without(constants), config, POSITIONS)
    params = apply(held, rules(), shapes(config), what='CLIP of Hugging Face')
    model = {'model': 'clip', 'clip': dataclasses.asdict(config)}
    return Conversion(model, params, held, tuple(constants))

  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """The whole table."""
    self.holdable(model)
    return rules()

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Indices."""
    c = ClipConfig(**model['clip'])
    vision = name.startswith('vision')
    count = 1 + (c.image_size // c.patch) ** 2 if vision else c.context_length
    return np.arange(count, dtype=np.int64)[None]

  def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model."""
    return {'config.json': write_settings(model)}


HF_CLIP = _HfClip(
  'hf_clip',
  'clip',
  'text_model.* and vision_model.* in a folder with config.json, which says the '
  'activation',
)
convert, recognise = HF_CLIP.convert, HF_CLIP.recognise
