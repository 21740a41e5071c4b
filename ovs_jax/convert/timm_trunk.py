"""Image towers of timm, which open_clip's checkpoints hold as `visual.trunk.*`."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ovs_jax.convert.rules import Rule, table
from ovs_jax.core.errors import UserError
from ovs_jax.models import image_kinds
from ovs_jax.models.clip_config import ImageTower

PREFIX = 'visual.trunk.'
KERNEL, POSITIONS = f'{PREFIX}patch_embed.proj.weight', f'{PREFIX}pos_embed'
BLOCKS, POOL_MLP = f'{PREFIX}blocks', f'{PREFIX}attn_pool.mlp.fc1.bias'
# As long as the joint space is wide, by what leads there.
EMBED = {'bias': 'head.bias', 'none': 'norm.bias'}
_HEADS = {
  'tiny': 3,
  'small': 6,
  'base': 12,
  'large': 16,
  'so400m': 16,
  'giantopt': 16,
  'gigantic': 16,
  'enormous': 16,
}
# SigLIPs that timm computes with the GELU by a hyperbolic tangent; others are exact.
_TANH = re.compile(
  r'vit_(giantopt_patch16_\w+|so400m_patch16_\w+|large_patch16_siglip_512'
  r'|base_patch32_siglip_256)'
)
_SIGLIP = re.compile(r'vit_(base|large|so400m|giantopt)_patch\d+_siglip_\d+')
_CLIP = re.compile(r'vit_(base|large)_patch\d+_clip_(quickgelu_)?\d+')
_PE = re.compile(r'vit_pe_core_(tiny|small|base|large|gigantic)_patch(\d+)_(\d+)')
# ConvNeXts by the epsilon of their norms.
_CONVNEXT = dict.fromkeys(
  (f'convnext_{size}' for size in ('tiny', 'small', 'base', 'large', 'xlarge')), 1e-6
)
_CONVNEXT['convnext_xxlarge'] = 1e-5
_EVA02 = re.compile(r'eva02_(base|large|enormous)_patch\d+_clip_\d+')

_BLOCK = """
  attn.proj         attn/out out
  norm<i:1|2>       ln_<i>   norm
  mlp.fc2           c_proj   linear
"""
_QUERIES = {
  'packed': 'attn.qkv attn qkv',
  'no key bias': """
    attn.qkv             attn             qkv_matrix
    attn.<part:q|v>_bias attn/<part>/bias head_bias
  """,
  'apart': """
    attn.<part:q|v>_proj attn/<part> heads
    attn.k_proj          attn/k      head_matrix
  """,
}
_PLAIN, _GATED = 'mlp.fc1 c_fc linear', 'mlp.fc1_g c_gate linear mlp.fc1_x c_fc linear'
_INNER_NORMS = 'attn.norm attn/ln norm mlp.norm ln_mlp norm'
_POOL = """
  latent     probe     vector
  q          attn/q    heads
  kv         attn      kv
  proj       attn/out  out
  norm       ln        norm
  mlp.fc1    c_fc      linear
  mlp.fc2    c_proj    linear
"""


@dataclasses.dataclass(frozen=True)
class Trunk:
  """What timm computes by a name, beside what shapes tell.

  Attributes:
    tower: its kind.
    heads: of attention.
    activation: of the MLPs.
    epsilon: of the layer norms.
  """

  tower: ImageTower
  heads: int
  activation: str
  epsilon: float


def by_name(name: str, *, pool: str, projection: Any) -> Trunk:
  """Returns what a tower is.

  Args:
    name: of timm, as `timm_model_name` says it.
    pool: `timm_pool` of open_clip.
    projection: `timm_proj` of open_clip.

  Raises:
    ValueError: it is not one that is supported.
  """
  given = (pool, projection or '')
  if (found := _SIGLIP.fullmatch(name)) and given == ('map', 'none'):
    heads = _HEADS[found[1]]
    tanh = _TANH.fullmatch(name)
    kind = image_kinds.siglip(heads)
    return Trunk(kind, heads, 'gelu_tanh' if tanh else 'gelu', 1e-6)
  if (found := _CLIP.fullmatch(name)) and given == ('token', ''):
    activation = 'quick_gelu' if found[2] else 'gelu'
    return Trunk(ImageTower(projection='bias'), _HEADS[found[1]], activation, 1e-5)
  if (found := _PE.fullmatch(name)) and given == ('map', ''):
    size, patch, side = found.groups()
    kind = image_kinds.pe(int(side) // int(patch), class_token=size != 'gigantic')
    return Trunk(kind, _HEADS[size], 'gelu', 1e-5)
  if (found := _EVA02.fullmatch(name)) and given == ('token', ''):
    kind = image_kinds.EVA02_E if found[1] == 'enormous' else image_kinds.EVA02
    return Trunk(kind, _HEADS[found[1]], 'gelu', 1e-6)
  if name in _CONVNEXT and given in (('', 'linear'), ('', 'mlp')):
    # How many blocks stages have shapes tell.
    kind = image_kinds.convnext((), 'mlp' if given[1] == 'mlp' else 'matrix')
    return Trunk(kind, 1, 'gelu', _CONVNEXT[name])
  raise UserError(
    f'the image tower {name!r} of timm (timm_pool {pool!r}, timm_proj {projection!r}) '
    'is not supported; of timm there are SigLIP (vit_*_siglip_*), CLIP (vit_*_clip_*, '
    'as in MobileCLIP2-L-14), PE-Core (vit_pe_core_*), EVA02 (eva02_*_clip_*) and '
    'ConvNeXt (convnext_*). Convert another checkpoint'
  )


def check_told(told: Mapping[str, Any]) -> None:
  """Raises ValueError unless the settings of open_clip came along."""
  if 'image_tower' not in told:
    raise UserError(
      f'{PREFIX}* is an image tower of timm, of which open_clip_config.json says what '
      'it computes; give the folder that has both as --input='
    )


def has(tower: ImageTower) -> bool:
  """Whether open_clip has such a tower in timm's layout, and not in its own."""
  return tower.patch_bias or tower.projection != 'matrix'


def rules(tower: ImageTower, source: str, target: str) -> list[Rule]:
  """Returns the table of a tower, with these in front of names and paths."""
  lines = f"""
    patch_embed.proj  conv1                {'conv' if tower.patch_bias else 'filters'}
    pos_embed         positional_embedding row
    norm              ln_post              norm
  """
  if tower.class_token:
    lines += ' cls_token class_embedding vector'
  if tower.pre_norm:
    lines += ' norm_pre ln_pre norm'
  if tower.projection == 'bias':
    lines += ' head head linear'
  found = table(lines, source, target)
  if tower.pool == 'map':
    found += table(_POOL, f'{source}attn_pool.', f'{target}pool/')
  return [*found, *table(_block(tower), f'{source}blocks.<layer>.', f'{target}blocks/')]


def _block(tower: ImageTower) -> str:
  queries = 'packed' if tower.key_bias else 'apart'
  if tower.norm_after:
    queries = 'no key bias'
  lines = [_BLOCK, _QUERIES[queries], _GATED if tower.gated else _PLAIN]
  return ' '.join([*lines, _INNER_NORMS if tower.inner_norms else ''])
