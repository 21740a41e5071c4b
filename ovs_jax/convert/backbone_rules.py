"""Tables of backbones, for each layout.

Swin as Microsoft published it (detectron2's files have the same names) and as Hugging
Face names it; ResNet as detectron2 and Hugging Face name it.
"""

from ovs_jax.convert.rules import (
  CONV,
  LINEAR,
  OUT,
  PROJECTION,
  QKV,
  SAME,
  Rule,
  linear_rules,
  norm_rules,
)
from ovs_jax.models import resnet


def head_rules(source: str, target: str) -> list[Rule]:
  """Rules for one of the projections of an attention to heads."""
  return [
    Rule(rf'{source}\.weight', f'{target}/kernel', PROJECTION),
    Rule(rf'{source}\.bias', f'{target}/bias', PROJECTION),
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
