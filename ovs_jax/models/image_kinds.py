"""Kinds of image towers that published CLIPs have, whatever their sizes."""

from ovs_jax.models.clip_config import ImageTower

# EVA02-CLIP of base and large; of enormous.
EVA02 = ImageTower(
  patch_bias=True,
  pre_norm=False,
  projection='bias',
  gated=True,
  inner_norms=True,
  key_bias=False,
  rope='eva',
  rope_grid=16,
)
EVA02_E = ImageTower(
  patch_bias=True,
  pre_norm=False,
  projection='bias',
  norm_after=True,
  key_bias=False,
)


def siglip(heads: int) -> ImageTower:
  """SigLIP's and SigLIP 2's; the probe has the heads of the tower."""
  return ImageTower(
    class_token=False,
    patch_bias=True,
    pre_norm=False,
    pool='map',
    pool_heads=heads,
    projection='none',
  )


def pe(grid: int, *, class_token: bool = True, pool_mlp: int = 0) -> ImageTower:
  """PE-Core's.

  Args:
    grid: rows and columns of patches that it was trained with.
    class_token: which all but the largest have.
    pool_mlp: hidden units behind the probe, where they are not those of the blocks.
  """
  return ImageTower(
    class_token=class_token,
    pool='map',
    pool_heads=8,
    projection='bias',
    pool_mlp=pool_mlp,
    rope='pe',
    rope_grid=grid,
    resize_positions='bilinear',
  )


def convnext(stages: tuple[int, ...], projection: str) -> ImageTower:
  """ConvNeXt's (Liu et al., 2022), with a 'matrix' or an 'mlp' behind it."""
  return ImageTower(
    class_token=False,
    patch_bias=True,
    pool='mean',
    projection=projection,
    stages=stages,
  )


def tips(registers: int, *, gated: bool) -> ImageTower:
  """TIPSv2's, whose registers are further class tokens; large ones have SwiGLU."""
  return ImageTower(
    patch_bias=True,
    pre_norm=False,
    projection='none',
    gated=gated,
    resize_positions='bilinear',
    registers=registers,
    antialias=True,
  )
