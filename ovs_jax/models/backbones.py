"""The backbones of the proposer, by name, by sizes, and as modules."""

from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.limits import OneOf
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Params
from ovs_jax.models import resnet, swin

Config = resnet.ResNetConfig | swin.SwinConfig

PRESETS: dict[str, Config] = {**resnet.PRESETS, **swin.PRESETS}
Preset = Annotated[str, OneOf(PRESETS)]
PATCH = 4  # pixels of the smallest input: the first features have stride 4


def from_dict(sizes: Mapping[str, Any]) -> Config:
  """Reads the sizes of either kind as a checkpoint holds them."""
  if 'window' in sizes:
    return swin.SwinConfig.from_dict(sizes)
  return resnet.ResNetConfig.from_dict(sizes)


def resolve(backbone: str | Config) -> Config:
  """Returns the sizes of a preset, or those given."""
  return (
    lookup(PRESETS, backbone, 'backbone') if isinstance(backbone, str) else backbone
  )


def named(config: Config) -> str | Config:
  """Returns the name of the preset with these sizes, or the sizes."""
  names = [name for name, sizes in PRESETS.items() if sizes == config]
  return names[0] if names else config


def kind(config: Config) -> str:
  """Returns 'Swin' or 'ResNet', for messages."""
  return 'Swin' if isinstance(config, swin.SwinConfig) else 'ResNet'


def build(config: Config, dtype: Any, *, remat: bool, name: str | None) -> nn.Module:
  """Returns the module; `remat` recomputes its blocks in the backward pass."""
  if isinstance(config, swin.SwinConfig):
    return swin.Swin(config, dtype, remat, name=name)
  return resnet.ResNet(config, dtype, remat, name=name)


def init_backbone(config: Config, key: Array) -> Params:
  """Draws the parameters of a backbone."""
  model = build(config, jnp.float32, remat=False, name=None)
  image = jnp.zeros((1, 64, 64, 3))
  return model.init(key, image)['params']
