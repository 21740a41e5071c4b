"""Writes the goldens of the models: random weights and what they give.

    python tests/goldens/make_goldens.py

The outputs come from `numpy_models.py`. Weights have the names and layouts of the
released checkpoints, so that the goldens test the converters as well; they are stored
as float16 values.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy_models import (
  CLIP,
  MEAN,
  PROPOSER,
  STD,
  Weights,
  backbone,
  clip_image,
  clip_text,
  mlp,
  pixel_decoder,
  query_decoder,
)
from numpy_swin import SWIN, swin, swin_shapes

FOLDER = pathlib.Path(__file__).parent


def block_shapes(name: str, width: int) -> dict[str, Sequence[int]]:
  """Returns the tensors of one CLIP block."""
  return {
    f'{name}.attn.in_proj_weight': (3 * width, width),
    f'{name}.attn.in_proj_bias': (3 * width,),
    f'{name}.attn.out_proj.weight': (width, width),
    f'{name}.attn.out_proj.bias': (width,),
    f'{name}.ln_1.weight': (width,),
    f'{name}.ln_1.bias': (width,),
    f'{name}.mlp.c_fc.weight': (4 * width, width),
    f'{name}.mlp.c_fc.bias': (4 * width,),
    f'{name}.mlp.c_proj.weight': (width, 4 * width),
    f'{name}.mlp.c_proj.bias': (width,),
    f'{name}.ln_2.weight': (width,),
    f'{name}.ln_2.bias': (width,),
  }


def clip_shapes(c: Mapping[str, int]) -> dict[str, Sequence[int]]:
  """Returns the tensors of OpenAI's CLIP, and OVSeg's mask prompts."""
  vision, text, embed = c['vision_width'], c['text_width'], c['embed_dim']
  patches = (c['image_size'] // c['patch']) ** 2
  shapes: dict[str, Sequence[int]] = {
    'positional_embedding': (c['context_length'], text),
    'text_projection': (text, embed),
    'logit_scale': (),
    'visual.class_embedding': (vision,),
    'visual.positional_embedding': (patches + 1, vision),
    'visual.proj': (vision, embed),
    'visual.conv1.weight': (vision, 3, c['patch'], c['patch']),
    'token_embedding.weight': (c['vocab_size'], text),
  }
  for norm, width in (
    ('visual.ln_pre', vision),
    ('visual.ln_post', vision),
    ('ln_final', text),
  ):
    shapes |= {f'{norm}.weight': (width,), f'{norm}.bias': (width,)}
  for i in range(c['vision_layers']):
    shapes |= block_shapes(f'visual.transformer.resblocks.{i}', vision)
  for i in range(c['text_layers']):
    shapes |= block_shapes(f'transformer.resblocks.{i}', text)
  if c['prompt_depth']:
    shapes['visual.mask_embedding'] = (c['prompt_depth'], patches, vision)
  return shapes


def proposer_shapes(c: Mapping[str, Any]) -> dict[str, Sequence[int]]:
  """Returns the tensors of OVSeg's proposer with a ResNet."""
  shapes: dict[str, Sequence[int]] = {}

  def add_conv(name: str, size: Sequence[int], norm: Sequence[str]) -> None:
    shapes[f'{name}.weight'] = size
    shapes.update({f'{name}.norm.{part}': (size[0],) for part in norm})

  def add_linear(name: str, *size: int) -> None:
    shapes.update({f'{name}.weight': size, f'{name}.bias': size[:1]})

  frozen = ('weight', 'bias', 'running_mean', 'running_var')
  stem = c['stem_width']
  for i, size in enumerate(((stem, 3), (stem, stem), (2 * stem, stem))):
    add_conv(f'backbone.stem.conv{i + 1}', (*size, 3, 3), frozen)
  before, widths = 2 * stem, [c['out_width'] * 2**stage for stage in range(4)]
  for stage, depth in enumerate(c['depths']):
    inner, out = c['bottleneck'] * 2**stage, widths[stage]
    for i in range(depth):
      block = f'backbone.res{stage + 2}.{i}'
      if before != out:
        add_conv(f'{block}.shortcut', (out, before, 1, 1), frozen)
      add_conv(f'{block}.conv1', (inner, before, 1, 1), frozen)
      add_conv(f'{block}.conv2', (inner, inner, 3, 3), frozen)
      add_conv(f'{block}.conv3', (out, inner, 1, 1), frozen)
      before = out
  head, width, pixel = 'sem_seg_head', c['width'], c['pixel_width']
  affine = ('weight', 'bias')
  for i in (1, 2, 3, 4):
    name, source = f'{head}.pixel_decoder', widths[3] if i == 4 else pixel
    add_conv(f'{name}.layer_{i}', (pixel, source, 3, 3), affine)
    if i < 4:
      add_conv(f'{name}.adapter_{i}', (pixel, widths[i - 1], 1, 1), affine)
  add_linear(f'{head}.pixel_decoder.mask_features', c['mask_dim'], pixel, 3, 3)
  predictor = f'{head}.predictor'
  shapes[f'{predictor}.query_embed.weight'] = (c['num_queries'], width)
  add_linear(f'{predictor}.input_proj', width, widths[3], 1, 1)
  for i in range(c['layers']):
    layer = f'{predictor}.transformer.decoder.layers.{i}'
    for name in ('self_attn', 'multihead_attn'):
      shapes[f'{layer}.{name}.in_proj_weight'] = (3 * width, width)
      shapes[f'{layer}.{name}.in_proj_bias'] = (3 * width,)
      add_linear(f'{layer}.{name}.out_proj', width, width)
    add_linear(f'{layer}.linear1', c['feed_forward'], width)
    add_linear(f'{layer}.linear2', width, c['feed_forward'])
    for norm in ('norm1', 'norm2', 'norm3'):
      shapes |= {f'{layer}.{norm}.weight': (width,), f'{layer}.{norm}.bias': (width,)}
  norm = f'{predictor}.transformer.decoder.norm'
  shapes |= {f'{norm}.weight': (width,), f'{norm}.bias': (width,)}
  for i, size in enumerate(((width, width), (width, width), (c['mask_dim'], width))):
    add_linear(f'{predictor}.mask_embed.layers.{i}', *size)
  for i, size in enumerate(
    ((c['embed_hidden'], width), (c['embed_dim'], c['embed_hidden']))
  ):
    add_linear(f'{predictor}.class_embed.layers.{i}', *size)
  shapes['clip_adapter.non_object_embedding'] = (1, c['embed_dim'])
  return shapes


def draw(rng: np.random.Generator, shapes: Mapping[str, Sequence[int]]) -> Weights:
  """Draws non-trivial weights that keep activations near 1."""
  weights = {}
  for name, shape in shapes.items():
    x = rng.normal(size=shape)
    if name.endswith('running_var') or (len(shape) == 1 and name.endswith('weight')):
      x = 1 + 0.3 * np.tanh(x)
    elif len(shape) > 1 and 'embed' not in name:
      x = x / np.sqrt(np.prod(shape[1:]))
    else:
      x = 0.3 * x
    weights[name] = x.astype(np.float16).astype(np.float64)
  return weights


def save(name: str, config: Any, weights: Weights, **arrays: np.ndarray) -> None:
  """Writes one golden; outputs are float32, weights float16."""
  stored = {f'w/{k}': v.astype(np.float16) for k, v in weights.items()}
  small = {
    k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()
  }
  np.savez_compressed(
    FOLDER / f'{name}.npz', config_json=json.dumps(config), **stored, **small
  )


def main() -> None:
  """Writes the goldens."""
  rng = np.random.default_rng(7)
  w = draw(rng, clip_shapes(CLIP))
  image = rng.normal(size=(3, 3, CLIP['image_size'], CLIP['image_size']))
  image = image.astype(np.float32).astype(np.float64)
  keep = rng.random((3, 16)) < np.array([[1.1], [0.5], [0.1]])
  tokens = rng.integers(1, CLIP['vocab_size'] - 1, (4, CLIP['context_length']))
  for row, length in zip(tokens, (1, 4, 6, 8), strict=True):
    row[length:] = 0
    row[length] = CLIP['vocab_size'] - 1
  pairs = list(zip(image, keep, strict=True))
  save(
    'clip',
    CLIP,
    w,
    image=image,
    keep=keep,
    tokens=tokens.astype(np.int32),
    masked=np.stack([clip_image(w, x, k) for x, k in pairs]),
    plain=np.stack([clip_image(w, x, None) for x in image]),
    text=np.stack([clip_text(w, row) for row in tokens]),
  )
  w = draw(rng, proposer_shapes(PROPOSER))
  image = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
  features = backbone(w, ((image - MEAN) / STD).transpose(2, 0, 1))
  pixels, queries = pixel_decoder(w, features), query_decoder(w, features[-1])
  head = 'sem_seg_head.predictor'
  masks = [mlp(w, f'{head}.mask_embed', x, 3) for x in queries]
  none = w['clip_adapter.non_object_embedding']
  save(
    'proposer',
    PROPOSER,
    w,
    image=image,
    res5=features[-1],
    embeddings=np.stack([mlp(w, f'{head}.class_embed', x, 2) for x in queries]),
    mask_logits=np.stack([np.einsum('qd,dyx->qyx', x, pixels) for x in masks]),
    no_object=none / np.linalg.norm(none),
  )
  save_swin()


def save_swin() -> None:
  """Writes the golden of the Swin, at sizes that fit neither patches nor windows."""
  rng = np.random.default_rng(11)
  w = draw(rng, swin_shapes(SWIN))
  arrays = {}
  for name, size in (('odd', (37, 50)), ('small', (9, 64))):
    image = rng.normal(size=(*size, 3)).astype(np.float32).astype(np.float64)
    arrays[f'image_{name}'] = image
    for i, x in enumerate(swin(w, SWIN, image)):
      arrays[f'{name}_{i}'] = x
  save('swin', SWIN, w, **arrays)


if __name__ == '__main__':
  main()
