"""OVSeg's proposers: Swin-B (with ViT-L/14) and R101c (with ViT-B/16)."""

import dataclasses
from typing import Any

from ovs_jax.convert import backbones as tables
from ovs_jax.convert.rules import Rule, apply, layer_rules, table
from ovs_jax.convert.tensors import Source, Tensors, count, shapes_of
from ovs_jax.core.tree import drawn_shapes
from ovs_jax.models import backbones
from ovs_jax.models.maskformer import PRESETS, MaskFormerConfig, init_maskformer

CLIP_PREFIX = 'clip_adapter.clip_model.'

# Constants that the reference stores beside its parameters: the class weights of the
# loss, CLIP's pixel statistics, indices that follow from the window, and the counters
# of other flavours of batch norm.
CONSTANTS = (
  r'criterion\.empty_weight',
  r'clip_adapter\.pixel_(mean|std)',
  r'backbone\..*\.(num_batches_tracked|relative_position_index)',
)


# Pixel decoder, query decoder and the two heads.
_HEAD = """
  pixel_decoder.<conv:adapter|layer>_<level>  pixel_decoder/<conv>_<level>      filters
  pixel_decoder.<conv:adapter|layer>_<level>.norm
                                              pixel_decoder/<conv>_<level>_norm norm
  pixel_decoder.mask_features                 pixel_decoder/mask_features       conv
  predictor.query_embed.weight                query_decoder/query_embed         same
  predictor.input_proj                        query_decoder/input_proj          point
  predictor.transformer.decoder.layers.<index>.self_attn
                                      query_decoder/layer_<index>/self_attn  attention
  predictor.transformer.decoder.layers.<index>.multihead_attn
                                      query_decoder/layer_<index>/cross_attn attention
  predictor.transformer.decoder.layers.<index>.<part:linear1|linear2>
                                      query_decoder/layer_<index>/<part>     linear
  predictor.transformer.decoder.layers.<index>.<part:norm1|norm2|norm3>
                                      query_decoder/layer_<index>/<part>     norm
  predictor.transformer.decoder.norm          query_decoder/norm                norm
  predictor.<head:mask_embed|class_embed>.layers.<index> <head>/layer_<index>   linear
"""


def head_rules(source: str = 'sem_seg_head.', target: str = '') -> list[Rule]:
  """Returns the table of pixel decoder, query decoder and the two heads."""
  return table(_HEAD, source, target)


def rules(config: MaskFormerConfig, target: str = '') -> list[Rule]:
  """Returns the table of the whole proposer."""
  backbone = config.backbone_config()
  layout = backbones.kind(backbone).lower()
  return [
    *tables.rules(layout, backbone, 'backbone.', f'{target}backbone/', norms=True),
    *head_rules(target=target),
    *layer_rules('clip_adapter.non_object_embedding', f'{target}no_object', 'same'),
  ]


def infer_config(source: Source) -> MaskFormerConfig:
  """Returns the sizes of a proposer from the shapes of its tensors.

  What shapes do not tell (attention heads, groups, dilations, dropout) is OVSeg's.

  Raises:
    ValueError: it is not such a proposer.
  """
  head, predictor = 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'
  needed = (
    f'{head}.mask_features.weight',
    f'{predictor}.query_embed.weight',
    f'{predictor}.transformer.decoder.layers.0.linear1.weight',
    f'{predictor}.class_embed.layers.1.weight',
  )
  features, queries, feed, embed = shapes_of(source, needed, what='an OVSeg proposer')
  backbone = tables.infer_config(Tensors(source).inside('backbone.'))
  return dataclasses.replace(
    PRESETS['r101c_b16'],
    backbone=backbones.named(backbone),
    pixel_width=features[1],
    mask_dim=features[0],
    num_queries=queries[0],
    width=queries[1],
    feed_forward=feed[0],
    layers=count(source, f'{predictor}.transformer.decoder.layers.'),
    embed_hidden=embed[1],
    embed_dim=embed[0],
  )


def shapes(config: MaskFormerConfig) -> dict[str, Any]:
  """Returns the shapes of our parameters, without computing any."""
  return drawn_shapes(init_maskformer, config)


def convert(
  source: Source, config: MaskFormerConfig | None = None
) -> tuple[MaskFormerConfig, dict[str, Any]]:
  """Returns the configuration and the parameters of OVSeg's proposer.

  Names are taken as they are: the reference inserts a second `pixel_decoder.` into
  those of files that lack a version, and then trains or runs on random ones.

  Args:
    source: tensors of a whole OVSeg model; those of its CLIP are left to
      `convert.clip`.
    config: its sizes; None infers them.

  Raises:
    ValueError: it is not such a model; lists everything that does not fit.
  """
  own = Tensors(source).without(k for k in source if k.startswith(CLIP_PREFIX))
  if config is None:
    config = infer_config(own)
  what, backbone = 'OVSeg checkpoint', config.backbone_config()
  tables.check_kind(own.inside('backbone.'), backbone, what=what)
  params = apply(own, rules(config), shapes(config), what=what, ignore=CONSTANTS)
  return config, params
