"""Backbones: tables for each layout, and checkpoints pre-trained on ImageNet.

Swin comes as Microsoft published it (detectron2's files have the same names) and as
Hugging Face names it; ResNet as detectron2 (R-103.pkl and its like) and Hugging Face.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.convert.rules import (
  CONV,
  LINEAR,
  OUT,
  QKV,
  SAME,
  Rule,
  Shape,
  Transform,
  apply,
  linear_rules,
  norm_rules,
)
from ovs_jax.models import backbones, resnet, swin

# What may stand before the names of a backbone alone.
PREFIXES = ('module.', 'backbone.bottom_up.', 'backbone.', 'swin.', 'resnet.')
# What ImageNet's classifiers have and backbones have not, and buffers that follow from
# the sizes.
CONSTANTS = (
  r'(head|classifier|linear|fc|stem\.fc)\..*',
  r'(norm|layernorm)\.(weight|bias)',
  r'.*\.(relative_position_index|attn_mask|num_batches_tracked)',
)


def _split_heads(x: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
  (shape,) = shapes
  if x.shape[0] != shape[-2] * shape[-1] or x.shape[1:] != tuple(shape[:-2]):
    raise ValueError(f'gives {x.T.shape}, which does not fit {tuple(shape)}')
  return [x.T.reshape(shape)]


# One projection (out, in), or its bias, to (in, heads, head size).
HEADS = Transform(
  _split_heads,
  lambda parts: parts[0].reshape(*parts[0].shape[:-2], -1).T,
)


def head_rules(source: str, target: str) -> list[Rule]:
  """Rules for one of the projections of an attention to heads."""
  return [
    Rule(rf'{source}\.weight', f'{target}/kernel', HEADS),
    Rule(rf'{source}\.bias', f'{target}/bias', HEADS),
  ]


def output_rules(source: str, target: str) -> list[Rule]:
  """Rules for the projection of an attention from heads."""
  return [
    Rule(rf'{source}\.weight', f'{target}/kernel', OUT),
    Rule(rf'{source}\.bias', f'{target}/bias', SAME),
  ]


def swin_rules(source: str = '', target: str = '', *, norms: bool = True) -> list[Rule]:
  """Returns Microsoft's table; `norms`: whether the features' norms are there."""
  stage = rf'{source}layers\.(?P<stage>\d+)\.'
  block, ours = rf'{stage}blocks\.(?P<layer>\d+)\.', rf'{target}blocks_\g<stage>'
  qkv = [f'{ours}/attn/{part}' for part in 'qkv']
  table = [
    *linear_rules(rf'{source}patch_embed\.proj', f'{target}patch_embed', CONV),
    *norm_rules(rf'{source}patch_embed\.norm', f'{target}patch_norm'),
    *norm_rules(rf'{block}(?P<norm>norm[12])', rf'{ours}/\g<norm>'),
    Rule(
      rf'{block}attn\.relative_position_bias_table',
      f'{ours}/attn/relative_position_bias',
      SAME,
    ),
    Rule(rf'{block}attn\.qkv\.weight', ' '.join(f'{p}/kernel' for p in qkv), QKV),
    Rule(rf'{block}attn\.qkv\.bias', ' '.join(f'{p}/bias' for p in qkv), QKV),
    *output_rules(rf'{block}attn\.proj', f'{ours}/attn/out'),
    *linear_rules(rf'{block}mlp\.(?P<part>fc[12])', rf'{ours}/\g<part>'),
    *_merge_rules(rf'{stage}downsample\.', target),
  ]
  if norms:
    table += norm_rules(rf'{source}norm(?P<stage>\d)', rf'{target}norm_\g<stage>')
  return table


def _merge_rules(source: str, target: str) -> list[Rule]:
  ours = rf'{target}merge_\g<stage>'
  return [
    Rule(rf'{source}reduction\.weight', f'{ours}/reduction/kernel', LINEAR),
    *norm_rules(rf'{source}norm', f'{ours}/norm'),
  ]


def hf_swin_rules(source: str = '', target: str = '') -> list[Rule]:
  """Returns Hugging Face's table, without the features' norms."""
  stage = rf'{source}encoder\.layers\.(?P<stage>\d+)\.'
  block, ours = rf'{stage}blocks\.(?P<layer>\d+)\.', rf'{target}blocks_\g<stage>'
  attention = rf'{block}attention\.self\.'
  projection = rf'{source}embeddings\.patch_embeddings\.projection'
  table = [
    *linear_rules(projection, f'{target}patch_embed', CONV),
    *norm_rules(rf'{source}embeddings\.norm', f'{target}patch_norm'),
    *norm_rules(rf'{block}layernorm_before', f'{ours}/norm1'),
    *norm_rules(rf'{block}layernorm_after', f'{ours}/norm2'),
    Rule(
      rf'{attention}relative_position_bias_table',
      f'{ours}/attn/relative_position_bias',
      SAME,
    ),
    *output_rules(rf'{block}attention\.output\.dense', f'{ours}/attn/out'),
    *linear_rules(rf'{block}intermediate\.dense', f'{ours}/fc1'),
    *linear_rules(rf'{block}output\.dense', f'{ours}/fc2'),
    *_merge_rules(rf'{stage}downsample\.', target),
  ]
  for part in ('query', 'key', 'value'):
    table += head_rules(rf'{attention}{part}', f'{ours}/attn/{part[0]}')
  return table


def _batch_norm_rules(source: str, target: str) -> list[Rule]:
  return [
    *norm_rules(source, target),
    Rule(
      rf'{source}\.running_(?P<statistic>mean|var)', rf'{target}/\g<statistic>', SAME
    ),
  ]


def resnet_rules(source: str = '', target: str = '') -> list[Rule]:
  """Returns detectron2's table."""
  table = []
  for where, path in (
    (r'stem\.conv(?P<conv>\d)', r'stem_conv\g<conv>'),
    (
      r'(?P<stage>res\d)\.(?P<block>\d+)\.(?P<conv>conv\d|shortcut)',
      r'\g<stage>_\g<block>/\g<conv>',
    ),
  ):
    where, path = f'{source}{where}', f'{target}{path}'
    table.append(Rule(rf'{where}\.weight', f'{path}/conv/kernel', CONV))
    table += _batch_norm_rules(rf'{where}\.norm', f'{path}/norm')
  return table


def hf_resnet_rules(
  config: resnet.ResNetConfig, source: str = '', target: str = ''
) -> list[Rule]:
  """Returns Hugging Face's table for a ResNet of these sizes."""
  layer = rf'{source}encoder\.stages\.%d\.layers\.(?P<block>\d+)\.'
  parts = [(rf'{source}embedder\.embedder', f'{target}stem_conv1')]
  before = config.stem_width
  for stage, width in enumerate(config.stage_widths()):
    ours = rf'{target}res{stage + 2}_\g<block>'
    if before != width or config.strides[stage] != 1:
      parts.append((rf'{layer % stage}shortcut', f'{ours}/shortcut'))
    for i in range(2 if config.block == 'basic' else 3):
      parts.append((rf'{layer % stage}layer\.{i}', f'{ours}/conv{i + 1}'))
    before = width
  table = []
  for where, path in parts:
    table.append(Rule(rf'{where}\.convolution\.weight', f'{path}/conv/kernel', CONV))
    table += _batch_norm_rules(rf'{where}\.normalization', f'{path}/norm')
  return table


def count(source: Mapping[str, np.ndarray], pattern: str) -> int:
  """Returns how many values the group of `pattern` has at the start of names."""
  found = (re.match(pattern, name) for name in source)
  return len({match[1] for match in found if match})


def infer_swin(
  source: Mapping[str, np.ndarray], prefix: str = '', *, hugging_face: bool
) -> swin.SwinConfig:
  """Returns the sizes of a Swin from the shapes of its tensors.

  Raises:
    ValueError: tensors that tell the sizes are missing.
  """
  patch = (
    'embeddings.patch_embeddings.projection' if hugging_face else 'patch_embed.proj'
  )
  layers = f'{prefix}encoder.layers' if hugging_face else f'{prefix}layers'
  table = 'attention.self' if hugging_face else 'attn'
  table = f'blocks.0.{table}.relative_position_bias_table'
  stages = count(source, rf'{re.escape(layers)}\.(\d+)\.')
  tables = [f'{layers}.{stage}.{table}' for stage in range(stages)]
  kernel = f'{prefix}{patch}.weight'
  need(source, [kernel, *tables], what='a Swin')
  width, _, side, _ = source[kernel].shape
  return swin.SwinConfig(
    embed_dim=width,
    depths=tuple(
      count(source, rf'{re.escape(layers)}\.{stage}\.blocks\.(\d+)\.')
      for stage in range(stages)
    ),
    heads=tuple(source[name].shape[1] for name in tables),
    window=(math.isqrt(source[tables[0]].shape[0]) + 1) // 2,
    patch=side,
  )


def infer_resnet(
  source: Mapping[str, np.ndarray], prefix: str = ''
) -> resnet.ResNetConfig:
  """Returns the sizes of detectron2's ResNet with the DeepLab stem.

  Shapes do not tell the dilations of res5: they are taken to be those of R101c.
  """
  names = [f'{prefix}{name}' for name in ('stem.conv1.weight', 'res2.0.conv3.weight')]
  need(source, names, what='a ResNet')
  stem, block = (source[name].shape for name in names)
  return resnet.ResNetConfig(
    depths=tuple(
      count(source, rf'{re.escape(prefix)}res{stage}\.(\d+)\.') for stage in range(2, 6)
    ),
    stem_width=stem[0],
    bottleneck=block[1],
    out_width=block[0],
    multi_grid=resnet.PRESETS['r101c'].multi_grid,
    norm='frozen',
  )


def infer_hf_resnet(
  source: Mapping[str, np.ndarray], prefix: str = ''
) -> resnet.ResNetConfig:
  """Returns the sizes of Hugging Face's ResNet.

  Shapes do not tell strides: they are taken to be those of the published models.
  """
  stages = f'{prefix}encoder.stages'
  names = [f'{prefix}embedder.embedder.convolution.weight']
  names += [f'{stages}.{s}.layers.0.layer.0.convolution.weight' for s in range(4)]
  need(source, names, what='a ResNet')
  basic = f'{stages}.0.layers.0.layer.2.convolution.weight' not in source
  last = 1 if basic else 2
  widths = tuple(
    source[f'{stages}.{s}.layers.0.layer.{last}.convolution.weight'].shape[0]
    for s in range(4)
  )
  doubled = tuple(widths[0] * 2**s for s in range(4))
  return resnet.ResNetConfig(
    depths=tuple(
      count(source, rf'{re.escape(stages)}\.{s}\.layers\.(\d+)\.') for s in range(4)
    ),
    stem_width=source[names[0]].shape[0],
    bottleneck=source[names[1]].shape[0],
    out_width=widths[0],
    multi_grid=(1,),
    norm='frozen',
    stem='plain',
    block='basic' if basic else 'bottleneck',
    widths=() if widths == doubled else widths,
  )


def need(source: Mapping[str, np.ndarray], names: Sequence[str], *, what: str) -> None:
  """Raises ValueError if any of `names` is not there."""
  missing = [name for name in names if name not in source]
  if missing:
    raise ValueError(
      f'not {what}: {", ".join(missing[:12])} missing from its {len(source)} tensors'
    )


def shapes(config: backbones.Config) -> dict[str, Any]:
  """Returns the shapes of a backbone's parameters, without computing any."""
  model = backbones.build(config, jnp.float32, remat=False, name=None)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), image)['params']


def strip_prefix(source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the tensors of a backbone by their plain names."""
  tensors = dict(source)
  for prefix in PREFIXES:
    inside = {
      k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)
    }
    tensors = inside or tensors
  return tensors


def layout(source: Mapping[str, np.ndarray]) -> str:
  """Returns 'swin', 'hf_swin', 'resnet' or 'hf_resnet' for plain names.

  Raises:
    ValueError: it is none of them.
  """
  for name, first in (
    ('swin', 'patch_embed.proj.weight'),
    ('hf_swin', 'embeddings.patch_embeddings.projection.weight'),
    ('resnet', 'stem.conv1.weight'),
    ('hf_resnet', 'embedder.embedder.convolution.weight'),
  ):
    if first in source:
      return name
  raise ValueError(
    f'no known backbone: among its {len(source)} tensors is no patch embedding of a '
    'Swin (Microsoft, detectron2, Hugging Face) and no stem of a ResNet (detectron2 '
    'with the DeepLab stem, Hugging Face)'
  )


def infer_config(source: Mapping[str, np.ndarray]) -> backbones.Config:
  """Returns the sizes of a backbone in any layout, by plain names."""
  infer = {
    'swin': lambda x: infer_swin(x, hugging_face=False),
    'hf_swin': lambda x: infer_swin(x, hugging_face=True),
    'resnet': infer_resnet,
    'hf_resnet': infer_hf_resnet,
  }
  return infer[layout(source)](source)


def rules(name: str, config: backbones.Config, *, norms: bool = False) -> list[Rule]:
  """Returns the table of a layout; `norms`: of a Swin whose features have norms."""
  if name == 'swin':
    return swin_rules(norms=norms)
  if name == 'hf_swin':
    return hf_swin_rules()
  return resnet_rules() if name == 'resnet' else hf_resnet_rules(config)


def convert(
  source: Mapping[str, np.ndarray], config: backbones.Config | None = None
) -> tuple[backbones.Config, dict[str, Any]]:
  """Returns the sizes and the parameters of a backbone.

  The norms of a Swin's features, which ImageNet's classifiers lack, start as the
  identity.

  Args:
    source: its tensors by name.
    config: its sizes; None infers them.

  Raises:
    ValueError: it is no such backbone; lists everything that does not fit.
  """
  source = strip_prefix(source)
  name = layout(source)
  config = config or infer_config(source)
  check_kind('Swin' if 'swin' in name else 'ResNet', config, what='checkpoint')
  want, fresh = shapes(config), {}
  norms = 'norm0.weight' in source
  if 'swin' in name and not norms:
    fresh = {k: want.pop(k) for k in list(want) if re.fullmatch(r'norm_\d', k)}
  params = apply(
    source,
    rules(name, config, norms=norms),
    want,
    what=f'{backbones.kind(config)} checkpoint',
    ignore=CONSTANTS,
  )
  for key, norm in fresh.items():
    params[key] = {
      'scale': np.ones(norm['scale'].shape, np.float32),
      'bias': np.zeros(norm['bias'].shape, np.float32),
    }
  return config, params


def check_kind(kind: str, config: backbones.Config, *, what: str) -> None:
  """Raises ValueError if `config` is not of the backbone that a checkpoint holds."""
  if backbones.kind(config) != kind:
    raise ValueError(
      f'the {what} has a {kind} backbone, the configuration asks for a '
      f'{backbones.kind(config)}'
    )
