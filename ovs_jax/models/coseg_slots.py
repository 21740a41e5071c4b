"""The learned slots of CoSeg's language models, and what both models are made of."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import Depth, Maybe, OneOf, Rate, Size, Weight
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Float
from ovs_jax.models.layers import layer_norm, sine_position

_CHOICES = {
  'kind': ('prefix', 'cross'),
  'slot_position': ('sinusoidal', 'learned', 'none'),
  'image_position': ('none', 'learned', 'sine'),
}


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
  """A model that turns an image's patches into a sequence of label embeddings.

  Attributes:
    kind: 'prefix' (slots and patches attend to each other in one encoder) or 'cross'
      (an encoder over the patches, a decoder over the slots).
    num_slots: N, predicted labels per image.
    encoder_layers: blocks of the encoder.
    decoder_layers: blocks of the decoder; 0 for 'prefix'.
    heads: attention heads.
    mlp: hidden units of a block.
    dropout: rate in training.
    pre_norm: whether norms come before the branches, with GELU and a norm at the end.
    token_std: of the initial slots; the paper says "normal distribution".
    slot_position: what is added to the slots: sine waves, a learned table, nothing.
    image_position: what is added to the patches, which carry CLIP's positions: nothing,
      a learned table, which fits one size of image, or sine waves of the grid.
    context: whether slots see each other; without, each is predicted on its own.
  """

  kind: Annotated[str, OneOf(_CHOICES['kind'])]
  num_slots: Size
  encoder_layers: Depth
  decoder_layers: Maybe
  heads: Size
  mlp: Size
  dropout: Rate
  pre_norm: bool
  token_std: Weight
  slot_position: Annotated[str, OneOf(_CHOICES['slot_position'])]
  image_position: Annotated[str, OneOf(_CHOICES['image_position'])]
  context: bool

  def __post_init__(self) -> None:
    for name, choices in _CHOICES.items():
      lookup(dict.fromkeys(choices), getattr(self, name), f'language {name}')
    if self.num_slots < 1:
      raise UserError(f'num_slots {self.num_slots} must be at least 1')
    if (self.kind == 'prefix') != (self.decoder_layers == 0):
      raise UserError(
        f'a {self.kind!r} model with {self.decoder_layers} decoder_layers; prefix has '
        'none, cross has at least one'
      )


# CoSeg, section 3.4: 8 blocks and 4 heads; or 4 blocks on each side. On the rest of a
# block the paper is silent; it is PyTorch's default.
PRESETS: dict[str, LanguageConfig] = {
  'prefix': LanguageConfig(
    kind='prefix',
    num_slots=20,
    encoder_layers=8,
    decoder_layers=0,
    heads=4,
    mlp=2048,
    dropout=0.1,
    pre_norm=False,
    token_std=1.0,
    slot_position='sinusoidal',
    image_position='none',
    context=True,
  )
}
PRESETS['cross'] = dataclasses.replace(
  PRESETS['prefix'], kind='cross', encoder_layers=4, decoder_layers=4
)


def sine_waves(count: int, width: int) -> Float[Array, 'n d']:
  """The encoding of "Attention is all you need": sines and cosines interleaved."""
  rate = 10000.0 ** (-2 * jnp.arange((width + 1) // 2) / width)
  angle = jnp.arange(count)[:, None] * rate[None]
  pair = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=2)
  return pair.reshape(count, -1)[:, :width]


def final_norm(config: LanguageConfig, dtype: Any) -> Callable[[Array], Array]:
  """Returns what follows the last block: a norm, if there is none in it; float32."""
  norm = layer_norm('ln_final', dtype) if config.pre_norm else lambda x: x
  return lambda x: norm(x).astype(jnp.float32)


class Slots(nn.Module):
  """Learned tokens with their positions, and the patches with theirs."""

  config: LanguageConfig

  @nn.compact
  def __call__(
    self, patches: Float[Array, 'b l d'], grid: tuple[int, int]
  ) -> tuple[Float[Array, 'b n d'], Float[Array, 'b l d']]:
    """Returns the slots of every image, and the patches, row by row of the grid."""
    c = self.config
    b, length, width = patches.shape
    x = self.param('tokens', nn.initializers.normal(c.token_std), (c.num_slots, width))
    if c.slot_position == 'sinusoidal':
      x = x + sine_waves(c.num_slots, width)
    elif c.slot_position == 'learned':
      x = x + self.param('position', nn.initializers.normal(0.02), x.shape)
    if c.image_position == 'learned':
      table = nn.initializers.normal(0.02)
      patches = patches + self.param('image_position', table, (length, width))[None]
    elif c.image_position == 'sine':
      patches = patches + sine_position(*grid, width)[None]
    return jnp.broadcast_to(x[None], (b, *x.shape)), patches
