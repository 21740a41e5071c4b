"""Image towers of timm, which open_clip's checkpoints hold as `visual.trunk.*`."""

import dataclasses
import re
from typing import Any

from ovs_jax.convert.rules import Rule, table
from ovs_jax.core.errors import UserError
from ovs_jax.models.clip_config import ImageTower

PREFIX = 'visual.trunk.'
KERNEL, POSITIONS = f'{PREFIX}patch_embed.proj.weight', f'{PREFIX}pos_embed'
BLOCKS = f'{PREFIX}blocks'
_HEADS = {'base': 12, 'large': 16, 'so400m': 16, 'giantopt': 16}
# SigLIPs that timm computes with the GELU by a hyperbolic tangent; others are exact.
_TANH = re.compile(
  r'vit_(giantopt_patch16_\w+|so400m_patch16_\w+|large_patch16_siglip_512'
  r'|base_patch32_siglip_256)'
)
_SIGLIP = re.compile(r'vit_(base|large|so400m|giantopt)_patch\d+_siglip_\d+')
_CLIP = re.compile(r'vit_(base|large)_patch\d+_clip_(quickgelu_)?\d+')

_BLOCK = """
  attn.qkv          attn     qkv
  attn.proj         attn/out out
  norm<i:1|2>       ln_<i>   norm
  mlp.fc1           c_fc     linear
  mlp.fc2           c_proj   linear
"""
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
  if (found := _SIGLIP.fullmatch(name)) and pool == 'map' and projection == 'none':
    heads = _HEADS[found[1]]
    tower = ImageTower(
      class_token=False,
      patch_bias=True,
      pre_norm=False,
      pool='map',
      pool_heads=heads,
      projection='none',
    )
    tanh = _TANH.fullmatch(name)
    return Trunk(tower, heads, 'gelu_tanh' if tanh else 'gelu', 1e-6)
  found = _CLIP.fullmatch(name)
  if found and pool == 'token' and projection in (None, ''):
    activation = 'quick_gelu' if found[2] else 'gelu'
    return Trunk(ImageTower(projection='bias'), _HEADS[found[1]], activation, 1e-5)
  raise UserError(
    f'the image tower {name!r} of timm (timm_pool {pool!r}, timm_proj {projection!r}) '
    'is not supported; of timm there are SigLIP (vit_*_siglip_*) and CLIP '
    '(vit_*_clip_*, as in MobileCLIP2-L-14). Convert another checkpoint'
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
  return [*found, *table(_BLOCK, f'{source}blocks.<layer>.', f'{target}blocks/')]
