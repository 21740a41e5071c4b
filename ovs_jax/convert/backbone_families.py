"""Families of backbones: what the command makes of ImageNet's checkpoints, and back."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import backbones as tables
from ovs_jax.convert.family import Conversion, Family, Options, refuse_options
from ovs_jax.convert.rules import Rule
from ovs_jax.convert.tensors import Source, matching
from ovs_jax.models import backbones
from ovs_jax.models.resnet import ResNetConfig
from ovs_jax.models.swin import SwinConfig, relative_index

_KINDS = {'swin': 'Swin', 'hf_swin': 'Swin', 'resnet': 'ResNet', 'hf_resnet': 'ResNet'}
# Whole models, whose backbone is taken only if it is asked for.
_WHOLE = re.compile(r'(^|\.)(sem_seg_head|roi_heads|proposal_generator)\.')


def _recognise(
  source: Source, settings: Mapping[str, Any] | None, *, layout: str
) -> bool:
  del settings
  if any(_WHOLE.search(name) for name in source):
    return False
  return set(tables.LAYOUTS[layout]) <= set(tables.strip_prefix(source))


def _convert(
  source: Source,
  settings: Mapping[str, Any] | None,
  options: Options,
  *,
  layout: str,
) -> Conversion:
  refuse_options(options, what='a backbone')
  plain = tables.strip_prefix(source)
  found = tables.layout(plain)
  if found != layout:
    raise ValueError(
      f'these are names of {found}, not of {layout}; convert with --source={found}'
    )
  masks = matching(plain, [tables.MASKS])
  left = matching(plain, tables.CLASSIFIER)
  constants = matching(plain, [tables.BUFFERS])
  held = plain.without([*masks, *left, *constants])
  config = tables.infer_config(held)
  if layout.startswith('hf_'):
    config = tables.with_settings(config, settings)
  config, params = tables.convert(held, config)
  outside = [n for n in source if not n.startswith(tables.prefix_of(source))]
  others = [n.removeprefix('module.').split('.')[0] for n in outside]
  others += ['attn_mask' for _ in masks] + [n.split('.')[0] for n in left]
  model = {
    'model': 'backbone',
    'backbone': dataclasses.asdict(config),
    'feature_norms': tables.has_norms(plain),
  }
  return Conversion(model, params, held, tuple(constants), tuple(sorted(set(others))))


def _config(model: Mapping[str, Any], layout: str) -> backbones.Config:
  """Returns the sizes of a model that this layout can hold.

  Raises:
    ValueError: it cannot.
  """
  config = backbones.from_dict(model['backbone'])
  if backbones.kind(config) != _KINDS[layout]:
    raise ValueError(
      f'this backbone is a {backbones.kind(config)}, the layout {layout!r} is of a '
      f'{_KINDS[layout]}'
    )
  if isinstance(config, ResNetConfig) and layout == 'hf_resnet':
    if config.stem != 'plain' or set(config.multi_grid) != {1}:
      raise ValueError(
        'Hugging Face has no ResNet with the stem and the dilations of DeepLab; use '
        '--export=resnet'
      )
  return config


def _norms(model: Mapping[str, Any], layout: str) -> bool:
  return layout == 'swin' and model['feature_norms']


def _rules(model: Mapping[str, Any], *, layout: str) -> list[Rule]:
  config = _config(model, layout)
  return tables.rules(layout, config, norms=_norms(model, layout))


def _shapes(model: Mapping[str, Any], *, layout: str) -> dict[str, Any]:
  return tables.filled(_config(model, layout), norms=_norms(model, layout))


def _constant(name: str, model: Mapping[str, Any]) -> np.ndarray:
  return buffer(name, backbones.from_dict(model['backbone']))


def buffer(name: str, config: backbones.Config) -> np.ndarray:
  """Returns the value of one of `backbones.BUFFERS`; counters of batches start anew."""
  if name.endswith('relative_position_index'):
    return relative_index(config.window).astype(np.int64)
  return np.zeros((), np.int64)


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


def _settings(model: Mapping[str, Any], *, layout: str) -> dict[str, Any]:
  kind = _KINDS[layout]
  inner = settings(_config(model, layout))
  return {'config.json': {'architectures': [f'{kind}Model'], **inner}}


def _notes(model: Mapping[str, Any], *, layout: str) -> list[str]:
  notes = []
  if layout == 'hf_swin' and model['feature_norms']:
    notes.append('the norms of the features, which this layout has not, are left out')
  if layout == 'resnet' and set(model['backbone']['multi_grid']) != {1}:
    dilations = ', '.join(str(x) for x in model['backbone']['multi_grid'])
    notes.append(f'the file does not say the dilations of res5: {dilations}')
  return notes


def _family(layout: str, clue: str) -> Family:
  return Family(
    clue=clue,
    model='backbone',
    recognise=functools.partial(_recognise, layout=layout),
    convert=functools.partial(_convert, layout=layout),
    rules=functools.partial(_rules, layout=layout),
    shapes=functools.partial(_shapes, layout=layout),
    constant=_constant,
    settings=functools.partial(_settings, layout=layout)
    if layout.startswith('hf_')
    else None,
    notes=functools.partial(_notes, layout=layout),
  )


SWIN = _family(
  'swin',
  "patch_embed.* and layers.*.blocks.*: Microsoft's Swin (.pth) or detectron2's pickle "
  'of it; asked for, also the backbone of a whole model in detectron2',
)
HF_SWIN = _family(
  'hf_swin', 'embeddings.patch_embeddings.* and encoder.layers.*.blocks.*: a Swin'
)
RESNET = _family(
  'resnet', "stem.conv1.* and res2.*: detectron2's ResNet, such as R-103.pkl"
)
HF_RESNET = _family(
  'hf_resnet', 'embedder.embedder.* and encoder.stages.*: a ResNet of Hugging Face'
)
