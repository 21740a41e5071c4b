"""Hugging Face's MaskFormer, with a Swin or a ResNet: a classifier, not embeddings.

Its backbone, decoders and mask head are those of OVSeg's proposer, so that training
with names can start from one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovs_jax.convert import backbones as tables
from ovs_jax.convert.maskformer import shapes
from ovs_jax.convert.rules import (
  CONV,
  POINT,
  SAME,
  Rule,
  apply,
  linear_rules,
  norm_rules,
)
from ovs_jax.models import backbones
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.models.swin import SwinConfig

PIXELS = 'model.pixel_level_module.'
TRANSFORMER = 'model.transformer_module.'
# The class weights of the loss, buffers that follow from the sizes, and a norm of the
# Swin's last output that MaskFormer does not use.
CONSTANTS = (
  r'criterion\.empty_weight',
  r'.*\.(num_batches_tracked|relative_position_index)',
  r'model\.pixel_level_module\.encoder\.model\.layernorm\.(weight|bias)',
)


def backbone_rules(config: backbones.Config) -> list[Rule]:
  """Returns the table of either backbone."""
  encoder = r'model\.pixel_level_module\.encoder\.'
  if isinstance(config, SwinConfig):
    return [
      *tables.hf_swin_rules(rf'{encoder}model\.', 'backbone/'),
      *norm_rules(
        rf'{encoder}hidden_states_norms\.(?P<stage>\d)', r'backbone/norm_\g<stage>'
      ),
    ]
  return tables.hf_resnet_rules(config, encoder, 'backbone/')


def rules(config: MaskFormerConfig) -> list[Rule]:
  """Returns the table of the whole model."""
  fpn = r'model\.pixel_level_module\.decoder\.fpn\.'
  table = [
    *backbone_rules(config.backbone_config()),
    Rule(rf'{fpn}stem\.0\.weight', 'pixel_decoder/layer_4/kernel', CONV),
    *norm_rules(rf'{fpn}stem\.1', 'pixel_decoder/layer_4_norm'),
    *linear_rules(
      r'model\.pixel_level_module\.decoder\.mask_projection',
      'pixel_decoder/mask_features',
      CONV,
    ),
  ]
  for level in (1, 2, 3):  # theirs count from coarse to fine, from 0
    for part, name in (('proj', 'adapter'), ('block', 'layer')):
      where = rf'{fpn}layers\.{3 - level}\.{part}'
      ours = f'pixel_decoder/{name}_{level}'
      table.append(Rule(rf'{where}\.0\.weight', f'{ours}/kernel', CONV))
      table += norm_rules(rf'{where}\.1', f'{ours}_norm')
  return [
    *table,
    *_decoder_rules(),
    *linear_rules(r'class_predictor', 'class_predictor'),
    *linear_rules(r'mask_embedder\.(?P<index>\d)\.0', r'mask_embed/layer_\g<index>'),
  ]


def _decoder_rules() -> list[Rule]:
  transformer = r'model\.transformer_module\.'
  decoder = rf'{transformer}decoder\.'
  layer = rf'{decoder}layers\.(?P<index>\d+)\.'
  ours = r'query_decoder/layer_\g<index>'
  table = [
    Rule(rf'{transformer}queries_embedder\.weight', 'query_decoder/query_embed', SAME),
    *linear_rules(rf'{transformer}input_projection', 'query_decoder/input_proj', POINT),
    *norm_rules(rf'{decoder}layernorm', 'query_decoder/norm'),
    *linear_rules(rf'{layer}fc(?P<part>[12])', rf'{ours}/linear\g<part>'),
    *norm_rules(rf'{layer}self_attn_layer_norm', f'{ours}/norm1'),
    *norm_rules(rf'{layer}encoder_attn_layer_norm', f'{ours}/norm2'),
    *norm_rules(rf'{layer}final_layer_norm', f'{ours}/norm3'),
  ]
  for theirs, name in (('self_attn', 'self_attn'), ('encoder_attn', 'cross_attn')):
    for part in 'qkv':
      where = rf'{layer}{theirs}\.{part}_proj'
      table += tables.head_rules(where, f'{ours}/{name}/{part}')
    table += tables.output_rules(rf'{layer}{theirs}\.out_proj', f'{ours}/{name}/out')
  return table


def infer_config(source: Mapping[str, np.ndarray]) -> MaskFormerConfig:
  """Returns the sizes of a model from the shapes of its tensors.

  What shapes do not tell (attention heads, groups, strides, dropout) is that of the
  published models.

  Raises:
    ValueError: it is not such a model.
  """
  needed = (
    f'{PIXELS}decoder.mask_projection.weight',
    f'{TRANSFORMER}queries_embedder.weight',
    f'{TRANSFORMER}input_projection.weight',
    f'{TRANSFORMER}decoder.layers.0.fc1.weight',
    'class_predictor.weight',
  )
  tables.need(source, needed, what="Hugging Face's MaskFormer")
  features, queries, _, feed, classes = (source[k].shape for k in needed)
  encoder = f'{PIXELS}encoder.'
  if f'{encoder}model.embeddings.norm.weight' in source:
    backbone = tables.infer_swin(source, f'{encoder}model.', hugging_face=True)
  else:
    backbone = tables.infer_hf_resnet(source, encoder)
  return MaskFormerConfig(
    backbone=backbones.named(backbone),
    pixel_width=features[1],
    mask_dim=features[0],
    groups=32,
    num_queries=queries[0],
    width=queries[1],
    heads=8,
    feed_forward=feed[0],
    layers=tables.count(source, rf'{TRANSFORMER}decoder\.layers\.(\d+)\.'),
    dropout=0.1,
    embed_hidden=0,
    embed_dim=0,
    dtype='float32',
    num_classes=classes[0] - 1,
  )


def convert(
  source: Mapping[str, np.ndarray], config: MaskFormerConfig | None = None
) -> tuple[MaskFormerConfig, dict[str, Any]]:
  """Returns the configuration and the parameters of Hugging Face's MaskFormer.

  Args:
    source: its tensors by name.
    config: its sizes; None infers them.

  Raises:
    ValueError: it is not such a model; lists everything that does not fit.
  """
  if config is None:
    config = infer_config(source)
  swin = f'{PIXELS}encoder.model.embeddings.norm.weight' in source
  kind = 'Swin' if swin else 'ResNet'
  tables.check_kind(kind, config.backbone_config(), what='MaskFormer checkpoint')
  params = apply(
    source,
    rules(config),
    shapes(config),
    what='Hugging Face MaskFormer',
    ignore=CONSTANTS,
  )
  return config, params
