"""Published sizes of CLIPs, by short names.

A tokenizer is a file of a checkpoint; the sizes say that there is one, and not which.
"""

import dataclasses

from ovs_jax.models import image_kinds
from ovs_jax.models.clip_config import (
  NO_TOKENIZER,
  ClipConfig,
  ImageTower,
  TextTower,
)
from ovs_jax.ops.regions import Pixels

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIGLIP_PIXELS = Pixels(HALF, HALF, 'squash', 'bicubic')
TIPS_PIXELS = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 'squash', 'bilinear')
TIPS_TEXT = TextTower(
  activation='relu',
  causal=False,
  pool='mean',
  projection='none',
  hide_padding=True,
  positions='sinusoidal',
  scale_tokens=True,
)
# Widths of the towers that are no multiple of 64, and what they have.
_WIDE = {
  # width: blocks, heads, hidden units of an MLP (0: four times the width)
  'h14': (1280, 32, 16, 0),
  'g14': (1408, 40, 16, 6144),
  'bigg14': (1664, 48, 16, 8192),
}


def _published(
  embed_dim: int, image_size: int, patch: int, vision_width: int, vision_layers: int
) -> ClipConfig:
  """One of OpenAI's models (CLIP, table 20): heads of 64, text as wide as the space."""
  return ClipConfig(
    embed_dim=embed_dim,
    image_size=image_size,
    patch=patch,
    vision_width=vision_width,
    vision_layers=vision_layers,
    vision_heads=vision_width // 64,
    text_width=embed_dim,
    text_layers=12,
    text_heads=embed_dim // 64,
    context_length=77,
    vocab_size=49408,
    prompt_depth=0,
    dtype='float32',
    remat=False,
    unroll=1,
  )


def _wide(
  name: str, embed_dim: int, text_layers: int, activation: str, image_size: int = 224
) -> ClipConfig:
  """One of the towers above L (OpenCLIP; MetaCLIP; DFN)."""
  width, layers, heads, mlp = _WIDE[name]
  return dataclasses.replace(
    _published(embed_dim, image_size, 14, width, layers),
    vision_heads=heads,
    vision_mlp=mlp,
    text_layers=text_layers,
    activation=activation,
  )


def _worldwide(config: ClipConfig, vocab_size: int, end_token: int) -> ClipConfig:
  """MetaCLIP 2: other tokens, of which the first end token counts."""
  start, pad = (0, 1) if end_token == 2 else (-1, 0)  # of XLM-V, and of mT5
  text = TextTower(tokenizer=NO_TOKENIZER, start=start, end=end_token, pad=pad)
  return dataclasses.replace(
    config, vocab_size=vocab_size, end_token=end_token, text_tower=text
  )


_SIGLIP_SIZES = {
  # width, blocks, heads, hidden units: of images; and of texts
  'b': ((768, 12, 12, 3072), (768, 12, 12, 3072)),
  'l': ((1024, 24, 16, 4096), (1024, 24, 16, 4096)),
  'so400m': ((1152, 27, 16, 4304), (1152, 27, 16, 4304)),
  'gopt': ((1536, 40, 16, 6144), (1152, 27, 16, 4304)),
}


def _siglip(
  size: str, patch: int, image_size: int, *, version: int = 2, context: int = 64
) -> ClipConfig:
  """SigLIP (Zhai et al., 2023) or SigLIP 2 (Tschannen et al., 2025), as big_vision."""
  image, text = _SIGLIP_SIZES[size]
  width, layers, heads, mlp = image
  text_width, text_layers, text_heads, text_mlp = text
  return ClipConfig(
    embed_dim=width,
    image_size=image_size,
    patch=patch,
    vision_width=width,
    vision_layers=layers,
    vision_heads=heads,
    vision_mlp=mlp if mlp != 4 * width else 0,
    text_width=text_width,
    text_layers=text_layers,
    text_heads=text_heads,
    text_mlp=text_mlp if text_mlp != 4 * text_width else 0,
    context_length=context,
    vocab_size=256_000 if version == 2 else 32_000,
    prompt_depth=0,
    dtype='float32',
    remat=False,
    unroll=1,
    activation='gelu_tanh',
    vision_epsilon=1e-6,
    text_epsilon=1e-6,
    image_tower=image_kinds.siglip(heads),
    text_tower=TextTower(
      causal=False,
      pool='last',
      projection='bias',
      tokenizer=NO_TOKENIZER,
      cleaning='lower' if version == 2 else 'unpunctuated',
      end=1,
      pad=0 if version == 2 else 1,
    ),
    pixels=SIGLIP_PIXELS,
    scores='sigmoid',
  )


_PE_SIZES = {
  # width, blocks, heads: of images; and of texts
  't': ((192, 12, 3), (512, 12, 8)),
  's': ((384, 12, 6), (512, 12, 8)),
  'b': ((768, 12, 12), (1024, 24, 16)),
  'l': ((1024, 24, 16), (1024, 24, 16)),
  'g': ((1536, 50, 16), (1280, 24, 20)),
}


def _pe(size: str, patch: int, image_size: int) -> ClipConfig:
  """PE-Core (Bolya et al., 2025, table 17)."""
  (width, layers, heads), (text_width, text_layers, text_heads) = _PE_SIZES[size]
  largest = size == 'g'
  kind = image_kinds.pe(
    image_size // patch,
    class_token=not largest,
    pool_mlp=4 * width if largest else 0,
  )
  return dataclasses.replace(
    _published(text_width, image_size, patch, width, layers),
    vision_heads=heads,
    vision_mlp=8960 if largest else 0,
    text_layers=text_layers,
    text_heads=text_heads,
    context_length=72 if largest else 32,
    activation='gelu',
    image_tower=kind,
    pixels=Pixels(HALF, HALF, 'squash', 'bilinear'),
  )


def _eva02(config: ClipConfig, mlp: int) -> ClipConfig:
  """EVA02-CLIP (Sun et al., 2023), but for what is larger in the largest."""
  return dataclasses.replace(
    config,
    vision_mlp=mlp,
    vision_epsilon=1e-6,
    activation='gelu',
    image_tower=image_kinds.EVA02,
  )


def _eva02_e(text_width: int, text_layers: int) -> ClipConfig:
  """The largest, with its smaller text tower or the larger one."""
  config = _eva02(_published(1024, 224, 14, 1792, 64), 15_360)
  return dataclasses.replace(
    config,
    vision_heads=16,
    text_width=text_width,
    text_layers=text_layers,
    text_heads=text_width // 64,
    image_tower=image_kinds.EVA02_E,
  )


def _convnext(
  embed_dim: int,
  image_size: int,
  width: int,
  text_layers: int,
  *,
  stages: tuple[int, ...] = (3, 3, 27, 3),
  projection: str = 'matrix',
) -> ClipConfig:
  """LAION's CLIPs with a ConvNeXt (Liu et al., 2022); the text tower is OpenAI's."""
  return dataclasses.replace(
    _published(embed_dim, image_size, 32, width, sum(stages)),
    vision_heads=1,
    vision_epsilon=1e-6,
    text_layers=text_layers,
    activation='gelu',
    image_tower=image_kinds.convnext(stages, projection),
  )


def _tips(
  width: int, layers: int, heads: int, mlp: int = 0, *, text_layers: int = 12
) -> ClipConfig:
  """TIPSv2 (Google DeepMind, 2026); with 4096 hidden units they are gated."""
  gated = mlp == 4096
  return dataclasses.replace(
    _published(width, 448, 14, width, layers),
    vision_heads=heads,
    vision_mlp=mlp,
    vision_epsilon=1e-6,
    text_layers=text_layers,
    text_heads=heads,
    text_mlp=0 if gated else mlp,
    context_length=64,
    vocab_size=32_000,
    activation='gelu',
    image_tower=image_kinds.tips(1, gated=gated),
    text_tower=dataclasses.replace(TIPS_TEXT, tokenizer=NO_TOKENIZER),
    pixels=TIPS_PIXELS,
  )


def _clipa(config: ClipConfig) -> ClipConfig:
  """CLIPA (Li et al., 2023): the mean of the patches, and WordPiece of BERT."""
  image = ImageTower(pre_norm=False, pool='mean')
  text = TextTower(causal=False, pool='last', tokenizer=NO_TOKENIZER)
  text = dataclasses.replace(text, cleaning='whitespace', start=101, end=0)
  return dataclasses.replace(
    config,
    activation='gelu',
    context_length=32,
    vocab_size=32_000,
    image_tower=image,
    text_tower=text,
    pixels=Pixels(IMAGENET_MEAN, IMAGENET_STD, 'squash', 'bilinear'),
  )


_B16, _L14 = _published(512, 224, 16, 768, 12), _published(768, 224, 14, 1024, 24)
_H14 = _wide('h14', 1024, 24, 'gelu')
PRESETS: dict[str, ClipConfig] = {
  'b32': _published(512, 224, 32, 768, 12),
  'b16': _B16,
  'l14': _L14,
  'l14_336': _published(768, 336, 14, 1024, 24),
  # LAION's, MetaCLIP's and DFN's; of the last two B and L are OpenAI's sizes.
  'laion_h14': _H14,
  'laion_g14': _wide('g14', 1024, 24, 'gelu'),
  'laion_bigg14': _wide('bigg14', 1280, 32, 'gelu'),
  'metaclip_h14': _wide('h14', 1024, 24, 'quick_gelu'),
  'metaclip_bigg14': _wide('bigg14', 1280, 32, 'quick_gelu'),
  'metaclip2_l14': _worldwide(_L14, 250_100, 1),
  'metaclip2_h14': _worldwide(_wide('h14', 1024, 24, 'quick_gelu'), 901_629, 2),
  'metaclip2_bigg14': _worldwide(_wide('bigg14', 1280, 32, 'gelu'), 901_629, 2),
  'dfn5b_h14_378': dataclasses.replace(
    _wide('h14', 1024, 24, 'quick_gelu', 378), pixels=Pixels(resize='squash')
  ),
  'siglip_b16': _siglip('b', 16, 224, version=1),
  'siglip_l16_256': _siglip('l', 16, 256, version=1),
  # Of its 384 pixels a side, 14 go into 378.
  'siglip_so400m14_378': _siglip('so400m', 14, 378, version=1),
  'siglip2_b16': _siglip('b', 16, 224),
  'siglip2_l16_256': _siglip('l', 16, 256),
  'siglip2_l16_384': _siglip('l', 16, 384),
  'siglip2_so400m16_384': _siglip('so400m', 16, 384),
  'siglip2_gopt16_384': _siglip('gopt', 16, 384),
  'clipa_l14': _clipa(_L14),
  'clipa_h14': _clipa(_H14),
  'pe_t16_384': _pe('t', 16, 384),
  'pe_s16_384': _pe('s', 16, 384),
  'pe_b16': _pe('b', 16, 224),
  'pe_l14_336': _pe('l', 14, 336),
  'pe_g14_448': _pe('g', 14, 448),
  'eva02_b16': _eva02(_B16, 2048),
  'eva02_l14': _eva02(_L14, 2730),
  'eva02_l14_336': _eva02(_published(768, 336, 14, 1024, 24), 2730),
  'eva02_e14': _eva02_e(1024, 24),
  'eva02_e14_plus': _eva02_e(1280, 32),
  'convnext_base_w': _convnext(640, 256, 1024, 12),
  'convnext_large_d': _convnext(768, 256, 1536, 16, projection='mlp'),
  'convnext_large_d_320': _convnext(768, 320, 1536, 16, projection='mlp'),
  'convnext_xxlarge': dataclasses.replace(
    _convnext(1024, 256, 3072, 24, stages=(3, 4, 30, 3)), vision_epsilon=1e-5
  ),
  'tipsv2_b14': _tips(768, 12, 12),
  'tipsv2_l14': _tips(1024, 24, 16),
  'tipsv2_so400m14': _tips(1152, 27, 16, 4304, text_layers=27),
  'tipsv2_g14': _tips(1536, 40, 24, 4096),
  'mobileclip2_l14': dataclasses.replace(
    _L14,
    activation='gelu',
    image_tower=ImageTower(projection='bias'),
    text_tower=TextTower(causal=False),
  ),
  # Trains from scratch on a laptop in minutes; for the embedded world.
  'tiny': dataclasses.replace(
    _published(64, 48, 8, 64, 4),
    vision_heads=4,
    text_layers=2,
    text_heads=2,
    unroll=4,
  ),
}
PRESETS['tiny_siglip'] = dataclasses.replace(
  PRESETS['tiny'],
  activation='gelu_tanh',
  image_tower=dataclasses.replace(PRESETS['siglip2_b16'].image_tower, pool_heads=4),
  text_tower=TextTower(causal=False, pool='last', projection='bias'),
  context_length=24,
  pixels=PRESETS['siglip2_b16'].pixels,
  scores='sigmoid',
)
PRESETS['tiny_convnext'] = dataclasses.replace(
  PRESETS['tiny'],
  image_size=64,
  patch=32,
  vision_heads=1,
  vision_epsilon=1e-6,
  activation='gelu',
  image_tower=image_kinds.convnext((1, 1, 1, 1), 'mlp'),
)
