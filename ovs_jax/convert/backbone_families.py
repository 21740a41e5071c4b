"""Families of backbones: what the command makes of ImageNet's checkpoints, and back."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import backbones as tables
from ovs_jax.convert.family import Conversion, Family, Options, Settings, buffer
from ovs_jax.convert.rules import Rule
from ovs_jax.convert.tensors import Source, matching
from ovs_jax.core.errors import UserError
from ovs_jax.models import backbones
from ovs_jax.models.swin import SwinConfig

# Whole models, whose backbone is taken only if it is asked for.
_WHOLE = re.compile(r'(^|\.)(sem_seg_head|roi_heads|proposal_generator)\.')


class _Backbone(Family):
  """A layout of `backbones.LAYOUTS`."""

  model = 'backbone'

  def recognise(self, source: Source, settings: Settings) -> bool:
    """By names, unless a whole model is around it."""
    if any(_WHOLE.search(name) for name in source):
      return False
    return set(tables.LAYOUTS[self.name]) <= set(tables.strip_prefix(source))

  def convert(self, source: Source, settings: Settings, options: Options) -> Conversion:
    """Takes the backbone alone; a classifier and what is around it are left out."""
    options.refuse('a backbone')
    plain = tables.strip_prefix(source)
    found = tables.layout(plain)
    if found != self.name:
      raise UserError(
        f'these are names of {found}, not of {self.name}; convert with --source={found}'
      )
    masks = matching(plain, [tables.MASKS])
    left = matching(plain, tables.CLASSIFIER)
    constants = matching(plain, [tables.BUFFERS])
    held = plain.without([*masks, *left, *constants])
    config = tables.infer_config(held)
    if self.folder:
      config = tables.with_settings(config, settings)
    config, params = tables.convert(held, config)
    outside = [n for n in source if not n.startswith(tables.prefix_of(source))]
    others = {n.removeprefix('module.').split('.')[0] for n in (*outside, *left)}
    if masks:
      others.add('attn_mask')
    model = {
      'model': 'backbone',
      'backbone': dataclasses.asdict(config),
      'feature_norms': tables.has_norms(plain),
    }
    return Conversion(model, params, held, tuple(constants), tuple(sorted(others)))

  def _config(self, model: Mapping[str, Any]) -> backbones.Config:
    """Returns the sizes of a model; raises ValueError if this cannot hold them."""
    config = backbones.from_dict(model['backbone'])
    kind = tables.KINDS[self.name]
    if backbones.kind(config) != kind:
      raise UserError(
        f'this backbone is a {backbones.kind(config)}, the layout {self.name!r} is of '
        f'a {kind}'
      )
    if self.name == 'hf_resnet' and not tables.is_plain(config):
      raise UserError(
        'Hugging Face has no ResNet with the stem and the dilations of DeepLab; use '
        '--export=resnet'
      )
    return config

  def _norms(self, model: Mapping[str, Any]) -> bool:
    return self.name == 'swin' and model['feature_norms']

  def rules(self, model: Mapping[str, Any]) -> list[Rule]:
    """That of `backbones`."""
    return tables.rules(self.name, self._config(model), norms=self._norms(model))

  def shapes(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `backbones`, without norms of features that files have not."""
    return tables.filled(self._config(model), norms=self._norms(model))

  def constant(self, name: str, model: Mapping[str, Any]) -> np.ndarray:
    """Indices and counters."""
    return buffer(name, backbones.from_dict(model['backbone']))

  def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of Hugging Face."""
    inner = settings(self._config(model))
    names = [f'{tables.KINDS[self.name]}Model']
    return {'config.json': {'architectures': names, **inner}}

  def notes(self, model: Mapping[str, Any]) -> list[str]:
    """What the layout has no place for."""
    notes = []
    if self.name == 'hf_swin' and model['feature_norms']:
      notes.append('the norms of the features, which this layout has not, are left out')
    if self.name == 'resnet' and set(model['backbone']['multi_grid']) != {1}:
      dilations = ', '.join(str(x) for x in model['backbone']['multi_grid'])
      notes.append(f'the file does not say the dilations of res5: {dilations}')
    return notes


def settings(config: backbones.Config) -> dict[str, Any]:
  """Returns the keys of Hugging Face's config.json for a backbone."""
  if isinstance(config, SwinConfig):
    return {
      'model_type': 'swin',
      'embed_dim': config.embed_dim,
      'depths': list(config.depths),
      'num_heads': list(config.heads),
      'window_size': config.window,
      'patch_size': config.patch,
      'mlp_ratio': float(config.mlp_ratio),
      'drop_path_rate': config.drop_path,
      'image_size': 32 * config.window,  # 224 and 384 of the published models
      'num_channels': 3,
      'hidden_act': 'gelu',
      'layer_norm_eps': 1e-5,
      'qkv_bias': True,
      'use_absolute_embeddings': False,
      'hidden_size': config.embed_dim * 2 ** (len(config.depths) - 1),
    }
  return {
    'model_type': 'resnet',
    'embedding_size': config.stem_width,
    'hidden_sizes': list(config.stage_widths()),
    'depths': list(config.depths),
    'layer_type': config.block,
    'hidden_act': 'relu',
    'downsample_in_first_stage': config.strides[0] == 2,
    'downsample_in_bottleneck': config.stride_first,
    'num_channels': 3,
  }


SWIN = _Backbone(
  'swin',
  "patch_embed.* and layers.*.blocks.*: Microsoft's Swin (.pth) or detectron2's pickle "
  'of it; asked for, also the backbone of a whole model in detectron2',
)
HF_SWIN = _Backbone(
  'hf_swin',
  'embeddings.patch_embeddings.* and encoder.layers.*.blocks.*: a Swin',
)
RESNET = _Backbone(
  'resnet',
  "stem.conv1.* and res2.*: detectron2's ResNet, such as R-103.pkl",
)
HF_RESNET = _Backbone(
  'hf_resnet',
  'embedder.embedder.* and encoder.stages.*: a ResNet of Hugging Face',
)
