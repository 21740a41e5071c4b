"""Tables of backbones, for each layout.

Swin as Microsoft published it (detectron2's files have the same names) and as Hugging
Face names it; ResNet as detectron2 and Hugging Face name it.
"""

from ovs_jax.convert.rules import Rule, linear_rules, norm_rules
from ovs_jax.convert.transforms import CONV, LINEAR, OUT, PROJECTION, QKV, SAME
from ovs_jax.models import resnet


def head_rules(source: str, target: str) -> list[Rule]:
  """Rules for one of the projections of an attention to heads."""
  return [
    Rule(f'{source}.weight', f'{target}/kernel', PROJECTION),
    Rule(f'{source}.bias', f'{target}/bias', PROJECTION),
  ]


def output_rules(source: str, target: str) -> list[Rule]:
  """Rules for the projection of an attention from heads."""
  return [
    Rule(f'{source}.weight', f'{target}/kernel', OUT),
    Rule(f'{source}.bias', f'{target}/bias', SAME),
  ]


def swin_rules(source: str = '', target: str = '', *, norms: bool = True) -> list[Rule]:
  """Returns Microsoft's table; `norms`: whether the features' norms are there."""
  stage = f'{source}layers.<stage>.'
  block, ours = f'{stage}blocks.<layer>.', f'{target}blocks_<stage>'
  qkv = [f'{ours}/attn/{part}' for part in 'qkv']
  table = [
    *linear_rules(f'{source}patch_embed.proj', f'{target}patch_embed', CONV),
    *norm_rules(f'{source}patch_embed.norm', f'{target}patch_norm'),
    *norm_rules(f'{block}<norm:norm1|norm2>', f'{ours}/<norm>'),
    Rule(
      f'{block}attn.relative_position_bias_table',
      f'{ours}/attn/relative_position_bias',
      SAME,
    ),
    Rule(f'{block}attn.qkv.weight', ' '.join(f'{p}/kernel' for p in qkv), QKV),
    Rule(f'{block}attn.qkv.bias', ' '.join(f'{p}/bias' for p in qkv), QKV),
    *output_rules(f'{block}attn.proj', f'{ours}/attn/out'),
    *linear_rules(f'{block}mlp.<part:fc1|fc2>', f'{ours}/<part>'),
    *_merge_rules(f'{stage}downsample.', target),
  ]
  if norms:
    table += norm_rules(f'{source}norm<stage>', f'{target}norm_<stage>')
  return table


def _merge_rules(source: str, target: str) -> list[Rule]:
  ours = f'{target}merge_<stage>'
  return [
    Rule(f'{source}reduction.weight', f'{ours}/reduction/kernel', LINEAR),
    *norm_rules(f'{source}norm', f'{ours}/norm'),
  ]


def hf_swin_rules(source: str = '', target: str = '') -> list[Rule]:
  """Returns Hugging Face's table, without the features' norms."""
  stage = f'{source}encoder.layers.<stage>.'
  block, ours = f'{stage}blocks.<layer>.', f'{target}blocks_<stage>'
  attention = f'{block}attention.self.'
  projection = f'{source}embeddings.patch_embeddings.projection'
  table = [
    *linear_rules(projection, f'{target}patch_embed', CONV),
    *norm_rules(f'{source}embeddings.norm', f'{target}patch_norm'),
    *norm_rules(f'{block}layernorm_before', f'{ours}/norm1'),
    *norm_rules(f'{block}layernorm_after', f'{ours}/norm2'),
    Rule(
      f'{attention}relative_position_bias_table',
      f'{ours}/attn/relative_position_bias',
      SAME,
    ),
    *output_rules(f'{block}attention.output.dense', f'{ours}/attn/out'),
    *linear_rules(f'{block}intermediate.dense', f'{ours}/fc1'),
    *linear_rules(f'{block}output.dense', f'{ours}/fc2'),
    *_merge_rules(f'{stage}downsample.', target),
  ]
  for part in ('query', 'key', 'value'):
    table += head_rules(f'{attention}{part}', f'{ours}/attn/{part[0]}')
  return table


def _batch_norm_rules(source: str, target: str) -> list[Rule]:
  return [
    *norm_rules(source, target),
    Rule(f'{source}.running_<statistic:mean|var>', f'{target}/<statistic>', SAME),
  ]


def resnet_rules(source: str = '', target: str = '') -> list[Rule]:
  """Returns detectron2's table."""
  table = []
  for where, path in (
    ('stem.conv<conv>', 'stem_conv<conv>'),
    (
      'res<stage>.<block>.<conv:conv1|conv2|conv3|shortcut>',
      'res<stage>_<block>/<conv>',
    ),
  ):
    where, path = f'{source}{where}', f'{target}{path}'
    table.append(Rule(f'{where}.weight', f'{path}/conv/kernel', CONV))
    table += _batch_norm_rules(f'{where}.norm', f'{path}/norm')
  return table


def hf_resnet_rules(
  config: resnet.ResNetConfig, source: str = '', target: str = ''
) -> list[Rule]:
  """Returns Hugging Face's table for a ResNet of these sizes."""
  layer = f'{source}encoder.stages.%d.layers.<block>.'
  parts = [(f'{source}embedder.embedder', f'{target}stem_conv1')]
  before = config.stem_width
  for stage, width in enumerate(config.stage_widths()):
    ours = f'{target}res{stage + 2}_<block>'
    if before != width or config.strides[stage] != 1:
      parts.append((f'{layer % stage}shortcut', f'{ours}/shortcut'))
    for i in range(2 if config.block == 'basic' else 3):
      parts.append((f'{layer % stage}layer.{i}', f'{ours}/conv{i + 1}'))
    before = width
  table = []
  for where, path in parts:
    table.append(Rule(f'{where}.convolution.weight', f'{path}/conv/kernel', CONV))
    table += _batch_norm_rules(f'{where}.normalization', f'{path}/norm')
  return table
