"""Backbones pre-trained on ImageNet, and what all users of the tables need of them.

Swin comes from Microsoft, in detectron2's pickles of it, and from Hugging Face; ResNet
from detectron2 (R-103.pkl and its like) and from Hugging Face.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.convert import allowed
from ovs_jax.convert.rules import Rule, apply, layer_rules, table
from ovs_jax.convert.tensors import Source, Tensors, count, shape_of, shapes_of
from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import drawn_shapes
from ovs_jax.models import backbones, resnet, swin
from ovs_jax.models.maskformer import IMAGENET_MEAN, IMAGENET_STD

# What may stand before the names of a backbone alone.
PREFIXES = ('module.', 'backbone.bottom_up.', 'backbone.', 'swin.', 'resnet.')
# What ImageNet's classifiers have and backbones have not.
CLASSIFIER = (
  r'(head|classifier|linear|fc|stem\.fc)\..*',
  r'(norm|layernorm)\.(weight|bias)',
)
# Buffers that follow from the sizes; the last from those of the training pictures.
BUFFERS = r'.*\.(relative_position_index|num_batches_tracked)'
MASKS = r'.*\.attn_mask'
# Names that tell a layout.
LAYOUTS = {
  'swin': (
    'patch_embed.proj.weight',
    'layers.0.blocks.0.attn.relative_position_bias_table',
  ),
  'hf_swin': (
    'embeddings.patch_embeddings.projection.weight',
    'encoder.layers.0.blocks.0.attention.self.relative_position_bias_table',
  ),
  'resnet': ('stem.conv1.weight', 'res2.0.conv1.weight'),
  'hf_resnet': (
    'embedder.embedder.convolution.weight',
    'encoder.stages.0.layers.0.layer.0.convolution.weight',
  ),
}
KINDS = {'swin': 'Swin', 'hf_swin': 'Swin', 'resnet': 'ResNet', 'hf_resnet': 'ResNet'}
# What a config.json may say; shapes tell the sizes.
_SETTINGS: dict[str, allowed.Table] = {
  'Swin': {
    **allowed.COMMON,
    **allowed.free("""
      image_size patch_size embed_dim depths num_heads window_size mlp_ratio hidden_size
      num_layers num_hidden_layers num_attention_heads drop_path_rate encoder_stride
      out_features out_indices stage_names
    """),
    'model_type': allowed.only('swin', 'maskformer-swin'),
    'hidden_act': allowed.only('gelu'),
    **allowed.fixed('qkv_bias path_norm patch_norm', True),
    'use_absolute_embeddings': allowed.only(False),
    'layer_norm_eps': allowed.only(1e-5),
    'num_channels': allowed.only(3),
  },
  'ResNet': {
    **allowed.COMMON,
    **allowed.free("""
      image_size embedding_size hidden_sizes depths out_features out_indices stage_names
    """),
    'model_type': allowed.only('resnet'),
    'hidden_act': allowed.only('relu'),
    'layer_type': allowed.only('basic', 'bottleneck'),
    'downsample_in_first_stage': allowed.FLAG,
    'downsample_in_bottleneck': allowed.FLAG,
    'num_channels': allowed.only(3),
  },
}

# What a preprocessor_config.json may say beside one: pictures are of any size.
IMAGENET = [[x / 255 for x in values] for values in (IMAGENET_MEAN, IMAGENET_STD)]
_PIXELS = allowed.pixels(
  *IMAGENET, **allowed.free('do_center_crop crop_size crop_pct resample')
)

# Microsoft's names (detectron2's files have the same), without the features' norms.
_SWIN = """
  patch_embed.proj                        patch_embed                conv
  patch_embed.norm                        patch_norm                 norm
  layers.<stage>.blocks.<layer>.<norm:norm1|norm2>
                                          blocks_<stage>/<norm>      norm
  layers.<stage>.blocks.<layer>.attn.relative_position_bias_table
                          blocks_<stage>/attn/relative_position_bias same
  layers.<stage>.blocks.<layer>.attn.qkv  blocks_<stage>/attn        qkv
  layers.<stage>.blocks.<layer>.attn.proj blocks_<stage>/attn/out    out
  layers.<stage>.blocks.<layer>.mlp.<part:fc1|fc2>
                                          blocks_<stage>/<part>      linear
  layers.<stage>.downsample.reduction     merge_<stage>/reduction    matrix
  layers.<stage>.downsample.norm          merge_<stage>/norm         norm
"""
# Hugging Face's, without them as well.
_HF_SWIN_BLOCK = 'encoder.layers.<stage>.blocks.<layer>'
_HF_SWIN = f"""
  embeddings.patch_embeddings.projection          patch_embed                conv
  embeddings.norm                                 patch_norm                 norm
  {_HF_SWIN_BLOCK}.layernorm_before               blocks_<stage>/norm1       norm
  {_HF_SWIN_BLOCK}.layernorm_after                blocks_<stage>/norm2       norm
  {_HF_SWIN_BLOCK}.attention.self.relative_position_bias_table
                                  blocks_<stage>/attn/relative_position_bias same
  {_HF_SWIN_BLOCK}.attention.self.query           blocks_<stage>/attn/q      heads
  {_HF_SWIN_BLOCK}.attention.self.key             blocks_<stage>/attn/k      heads
  {_HF_SWIN_BLOCK}.attention.self.value           blocks_<stage>/attn/v      heads
  {_HF_SWIN_BLOCK}.attention.output.dense         blocks_<stage>/attn/out    out
  {_HF_SWIN_BLOCK}.intermediate.dense             blocks_<stage>/fc1         linear
  {_HF_SWIN_BLOCK}.output.dense                   blocks_<stage>/fc2         linear
  encoder.layers.<stage>.downsample.reduction     merge_<stage>/reduction    matrix
  encoder.layers.<stage>.downsample.norm          merge_<stage>/norm         norm
"""
# detectron2's.
_RESNET = """
  stem.conv<conv>                         stem_conv<conv>/conv       filters
  stem.conv<conv>.norm                    stem_conv<conv>/norm       batch_norm
  res<stage>.<block>.<conv:conv1|conv2|conv3|shortcut>
                                      res<stage>_<block>/<conv>/conv filters
  res<stage>.<block>.<conv:conv1|conv2|conv3|shortcut>.norm
                                      res<stage>_<block>/<conv>/norm batch_norm
"""


def rules(
  name: str,
  config: backbones.Config,
  source: str = '',
  target: str = '',
  *,
  norms: bool = False,
) -> list[Rule]:
  """Returns the table of a backbone.

  Args:
    name: of its layout, in `LAYOUTS`.
    config: its sizes.
    source: what its tensors' names have in front.
    target: what the paths of its parameters have in front.
    norms: whether the file has norms of the features, as a Swin of `swin` may.
  """
  if name == 'hf_resnet':
    return _hf_resnet_rules(config, source, target)
  features = 'norm<stage> norm_<stage> norm' if norms and name == 'swin' else ''
  return table(_TABLES[name] + features, source, target)


def _hf_resnet_rules(
  config: resnet.ResNetConfig, source: str, target: str
) -> list[Rule]:
  parts = [('embedder.embedder', 'stem_conv1')]
  before = config.stem_width
  for stage, width in enumerate(config.stage_widths()):
    layer, ours = f'encoder.stages.{stage}.layers.<block>', f'res{stage + 2}_<block>'
    if before != width or config.strides[stage] != 1:
      parts.append((f'{layer}.shortcut', f'{ours}/shortcut'))
    for i in range(2 if config.block == 'basic' else 3):
      parts.append((f'{layer}.layer.{i}', f'{ours}/conv{i + 1}'))
    before = width
  rules = []
  for name, path in parts:
    name, path = source + name, target + path
    rules += layer_rules(f'{name}.convolution', f'{path}/conv', 'filters')
    rules += layer_rules(f'{name}.normalization', f'{path}/norm', 'batch_norm')
  return rules


_TABLES = {'swin': _SWIN, 'hf_swin': _HF_SWIN, 'resnet': _RESNET}


def infer_config(source: Source) -> backbones.Config:
  """Returns the sizes of a backbone in any layout, from its shapes by plain names.

  Raises:
    ValueError: it is no known backbone, or tensors that tell the sizes are missing.
  """
  name = layout(source)
  if 'swin' in name:
    return _infer_swin(source, hugging_face=name == 'hf_swin')
  return _infer_resnet(source) if name == 'resnet' else _infer_hf_resnet(source)


def _infer_swin(source: Source, *, hugging_face: bool) -> swin.SwinConfig:
  patch, stages, bias, hidden = 'patch_embed.proj', 'layers', 'attn', 'mlp.fc1'
  if hugging_face:
    patch, stages = 'embeddings.patch_embeddings.projection', 'encoder.layers'
    bias, hidden = 'attention.self', 'intermediate.dense'
  stages += '.'
  number = range(count(source, stages))
  biases = [f'{stages}{i}.blocks.0.{bias}.relative_position_bias_table' for i in number]
  needed = [f'{patch}.weight', f'{stages}0.blocks.0.{hidden}.weight', *biases]
  (width, _, side, _), mlp, *tables = shapes_of(source, needed, what='a Swin')
  return swin.SwinConfig(
    embed_dim=width,
    depths=tuple(count(source, f'{stages}{i}.blocks.') for i in number),
    heads=tuple(shape[1] for shape in tables),
    window=(math.isqrt(tables[0][0]) + 1) // 2,
    patch=side,
    mlp_ratio=mlp[0] // width,
  )


def _infer_resnet(source: Source) -> resnet.ResNetConfig:
  """Returns the sizes of detectron2's, whose shapes do not tell the dilations of res5.

  They are taken to be those of R101c where the stem is DeepLab's.
  """
  names = ('stem.conv1.weight', 'res2.0.conv1.weight')
  stem, inner = (shape[0] for shape in shapes_of(source, names, what='a ResNet'))
  last = 'res2.0.conv3.weight'
  basic = last not in source
  deep = 'stem.conv2.weight' in source
  return resnet.ResNetConfig(
    depths=tuple(count(source, f'res{stage}.') for stage in range(2, 6)),
    stem_width=stem,
    bottleneck=inner,
    out_width=inner if basic else shape_of(source, last)[0],
    multi_grid=resnet.PRESETS['r101c'].multi_grid if deep else (1,),
    norm='frozen',
    stem='deep' if deep else 'plain',
    block='basic' if basic else 'bottleneck',
  )


def _infer_hf_resnet(source: Source) -> resnet.ResNetConfig:
  """Returns the sizes of Hugging Face's; strides are those of the published models."""
  stages = [f'encoder.stages.{i}.layers.' for i in range(4)]
  names = ['embedder.embedder', *(f'{stage}0.layer.0' for stage in stages)]
  needed = [f'{name}.convolution.weight' for name in names]
  stem, inner, *_ = (shape[0] for shape in shapes_of(source, needed, what='a ResNet'))
  basic = f'{stages[0]}0.layer.2.convolution.weight' not in source
  last = f'0.layer.{1 if basic else 2}.convolution.weight'
  widths = tuple(shape_of(source, f'{stage}{last}')[0] for stage in stages)
  doubled = tuple(widths[0] * 2**i for i in range(4))
  return resnet.ResNetConfig(
    depths=tuple(count(source, stage) for stage in stages),
    stem_width=stem,
    bottleneck=inner,
    out_width=widths[0],
    multi_grid=(1,),
    norm='frozen',
    stem='plain',
    block='basic' if basic else 'bottleneck',
    widths=() if widths == doubled else widths,
  )


def with_settings(
  config: backbones.Config, settings: Mapping[str, Any] | None, label: str = ''
) -> backbones.Config:
  """Returns the sizes with what only Hugging Face's config.json says.

  Args:
    config: from the shapes.
    settings: the contents of config.json, or one of its sections.
    label: the name of that section.

  Raises:
    ValueError: it asks for something that our model does not do, or is not understood.
  """
  if settings is None:
    return config
  allowed.check(
    'config.json', [(label, settings, _SETTINGS[backbones.kind(config)])], _PIXELS
  )
  if isinstance(config, swin.SwinConfig):
    return config
  first = 2 if settings.get('downsample_in_first_stage') else 1
  return dataclasses.replace(
    config,
    strides=(first, *config.strides[1:]),
    stride_first=bool(settings.get('downsample_in_bottleneck')),
  )


def shapes(config: backbones.Config) -> dict[str, Any]:
  """Returns the shapes of a backbone's parameters, without computing any."""
  return drawn_shapes(_init, config)


def _init(config: backbones.Config, key: jax.Array) -> dict[str, Any]:
  model = backbones.build(config, jnp.float32, remat=False, name=None)
  return model.init(key, jnp.zeros((1, 64, 64, 3)))['params']


def prefix_of(source: Source) -> str:
  """Returns what stands before the names of a backbone."""
  found = ''
  for part in PREFIXES:
    if any(name.startswith(found + part) for name in source):
      found += part
  return found


def strip_prefix(source: Source) -> Tensors:
  """Returns the tensors of a backbone by their plain names, without reading them."""
  return Tensors(source).inside(prefix_of(source))


def layout(source: Source) -> str:
  """Returns which of `LAYOUTS` plain names are of.

  Raises:
    ValueError: it is none of them.
  """
  for name, clues in LAYOUTS.items():
    if set(clues) <= set(source):
      return name
  raise UserError(
    f'no known backbone: among its {len(source)} tensors is no patch embedding with '
    'attention in windows of a Swin (Microsoft, detectron2, Hugging Face) and no stem '
    'of a ResNet (detectron2, Hugging Face)'
  )


def has_norms(source: Source) -> bool:
  """Whether these plain names have the norms of a Swin's features."""
  return 'norm0.weight' in source


def filled(config: backbones.Config, *, norms: bool) -> dict[str, Any]:
  """Returns the shapes of what files hold: not always the norms of a Swin's features.

  Args:
    config: sizes of the backbone.
    norms: whether the file has them.
  """
  want = shapes(config)
  if norms or not isinstance(config, swin.SwinConfig):
    return want
  return {k: v for k, v in want.items() if not re.fullmatch(r'norm_\d', k)}


def convert(
  source: Source, config: backbones.Config | None = None
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
  config = config or infer_config(source)
  name = check_kind(source, config, what='checkpoint')
  norms = has_norms(source)
  params = apply(
    source,
    rules(name, config, norms=norms),
    filled(config, norms=norms),
    what=f'{backbones.kind(config)} checkpoint',
    ignore=(*CLASSIFIER, BUFFERS, MASKS),
  )
  for key, leaves in shapes(config).items():
    if key not in params:
      params[key] = {
        'scale': np.ones(leaves['scale'].shape, np.float32),
        'bias': np.zeros(leaves['bias'].shape, np.float32),
      }
  return config, params


def check_kind(source: Source, config: backbones.Config, *, what: str) -> str:
  """Returns the layout of a backbone; raises ValueError if `config` is not of it."""
  name = layout(source)
  if backbones.kind(config) != KINDS[name]:
    raise UserError(
      f'the {what} has a {KINDS[name]} backbone, the configuration asks for a '
      f'{backbones.kind(config)}'
    )
  return name


def is_plain(config: backbones.Config) -> bool:
  """Whether Hugging Face has such a backbone: no stem and no dilations of DeepLab."""
  return isinstance(config, swin.SwinConfig) or (
    config.stem == 'plain' and set(config.multi_grid) == {1}
  )
