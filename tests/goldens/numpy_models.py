"""Float64 NumPy models of the reference, from which the goldens are computed.

They share no code with the package, read weights under the names and in the layouts of
the released checkpoints, and favour plainness over speed.
"""

from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]

CLIP = {
  'embed_dim': 12,
  'image_size': 16,
  'patch': 4,
  'vision_width': 16,
  'vision_layers': 4,
  'vision_heads': 2,
  'text_width': 16,
  'text_layers': 2,
  'text_heads': 4,
  'context_length': 9,
  'vocab_size': 40,
  'prompt_depth': 3,
}
PROPOSER: dict[str, Any] = {
  'depths': [1, 1, 2, 3],
  'multi_grid': [1, 2, 4],
  'stem_width': 3,
  'bottleneck': 2,
  'out_width': 6,
  'pixel_width': 8,
  'mask_dim': 6,
  'groups': 4,
  'num_queries': 5,
  'width': 16,
  'heads': 4,
  'feed_forward': 12,
  'layers': 2,
  'embed_hidden': 14,
  'embed_dim': 12,
}
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def softmax(x: np.ndarray) -> np.ndarray:
  """Over the last axis."""
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def linear(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
  """PyTorch's Linear: weight (out, in)."""
  return x @ w[f'{name}.weight'].T + w[f'{name}.bias']


def layer_norm(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
  """Over the last axis, epsilon 1e-5."""
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  return x * w[f'{name}.weight'] + w[f'{name}.bias']


def attention(
  w: Weights,
  name: str,
  query: np.ndarray,
  key: np.ndarray,
  value: np.ndarray,
  heads: int,
  mask: np.ndarray | None = None,
) -> np.ndarray:
  """PyTorch's MultiheadAttention of (n, d) tokens with packed projections."""
  d = query.shape[-1]
  size = d // heads
  inputs = zip(
    (query, key, value),
    np.split(w[f'{name}.in_proj_weight'], 3),
    np.split(w[f'{name}.in_proj_bias'], 3),
    strict=True,
  )
  q, k, v = (x @ matrix.T + bias for x, matrix, bias in inputs)
  parts = []
  for h in range(heads):
    cut = slice(h * size, (h + 1) * size)
    scores = q[:, cut] @ k[:, cut].T / np.sqrt(size)
    if mask is not None:
      scores = np.where(mask, scores, -np.inf)
    parts.append(softmax(scores) @ v[:, cut])
  return linear(w, f'{name}.out_proj', np.concatenate(parts, axis=-1))


def clip_block(
  w: Weights, name: str, x: np.ndarray, heads: int, mask: np.ndarray | None = None
) -> np.ndarray:
  """Pre-norm block with QuickGELU."""
  y = layer_norm(w, f'{name}.ln_1', x)
  x = x + attention(w, f'{name}.attn', y, y, y, heads, mask)
  y = linear(w, f'{name}.mlp.c_fc', layer_norm(w, f'{name}.ln_2', x))
  y = y / (1 + np.exp(-1.702 * y))
  return x + linear(w, f'{name}.mlp.c_proj', y)


def clip_image(w: Weights, image: np.ndarray, keep: np.ndarray | None) -> np.ndarray:
  """Embeds one (3, s, s) image; `keep` (n,) marks patches that are shown."""
  kernel = w['visual.conv1.weight']
  width, _, p, _ = kernel.shape
  grid = image.shape[1] // p
  tiles = image.reshape(3, grid, p, grid, p).transpose(1, 3, 0, 2, 4)
  x = tiles.reshape(grid * grid, -1) @ kernel.reshape(width, -1).T
  prompts = w['visual.mask_embedding']
  if keep is not None:
    x = np.where(keep[:, None], x, prompts[0])
  x = np.concatenate([w['visual.class_embedding'][None], x])
  x = layer_norm(w, 'visual.ln_pre', x + w['visual.positional_embedding'])
  for i in range(CLIP['vision_layers']):
    x = clip_block(
      w, f'visual.transformer.resblocks.{i}', x, heads=CLIP['vision_heads']
    )
    if keep is not None and i + 1 < len(prompts):
      x[1:] = np.where(keep[:, None], x[1:], prompts[i + 1])
  return layer_norm(w, 'visual.ln_post', x[0]) @ w['visual.proj']


def clip_text(w: Weights, ids: np.ndarray) -> np.ndarray:
  """Embeds one row of token ids."""
  x = w['token_embedding.weight'][ids] + w['positional_embedding']
  causal = np.tril(np.ones((len(ids), len(ids)), bool))
  for i in range(CLIP['text_layers']):
    x = clip_block(w, f'transformer.resblocks.{i}', x, CLIP['text_heads'], causal)
  return layer_norm(w, 'ln_final', x)[ids.argmax()] @ w['text_projection']


def conv(
  w: Weights, name: str, x: np.ndarray, stride: int = 1, dilation: int = 1
) -> np.ndarray:
  """PyTorch's Conv2d of (c, h, w), padded by dilation * (kernel // 2)."""
  kernel = w[f'{name}.weight']
  k = kernel.shape[-1]
  pad = dilation * (k // 2)
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
  reach = dilation * (k - 1) + 1
  windows = np.lib.stride_tricks.sliding_window_view(x, (reach, reach), axis=(1, 2))
  windows = windows[:, ::stride, ::stride, ::dilation, ::dilation]
  y = np.einsum('cyxij,ocij->oyx', windows, kernel)
  bias = w.get(f'{name}.bias')
  return y if bias is None else y + bias[:, None, None]


def conv_bn(w: Weights, name: str, x: np.ndarray, *args: int) -> np.ndarray:
  """Convolution and batch norm with stored statistics."""
  mean, var, scale, bias = (
    w[f'{name}.norm.{part}'][:, None, None]
    for part in ('running_mean', 'running_var', 'weight', 'bias')
  )
  return (conv(w, name, x, *args) - mean) / np.sqrt(var + 1e-5) * scale + bias


def conv_gn(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
  """Convolution and group norm."""
  y = conv(w, name, x)
  groups = y.reshape(PROPOSER['groups'], -1)
  groups = groups - groups.mean(1, keepdims=True)
  groups /= np.sqrt(groups.var(1, keepdims=True) + 1e-5)
  scale, bias = w[f'{name}.norm.weight'], w[f'{name}.norm.bias']
  return groups.reshape(y.shape) * scale[:, None, None] + bias[:, None, None]


def backbone(w: Weights, image: np.ndarray) -> list[np.ndarray]:
  """Returns res2 to res5."""
  x = image
  for i, stride in ((1, 2), (2, 1), (3, 1)):
    x = np.maximum(conv_bn(w, f'backbone.stem.conv{i}', x, stride), 0)
  x = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
  x = windows[:, ::2, ::2].max(axis=(-2, -1))
  features = []
  for stage, depth in enumerate(PROPOSER['depths']):
    for i in range(depth):
      name = f'backbone.res{stage + 2}.{i}'
      stride = 2 if stage and not i else 1
      dilation = PROPOSER['multi_grid'][i] if stage == 3 else 1
      y = np.maximum(conv_bn(w, f'{name}.conv1', x), 0)
      y = np.maximum(conv_bn(w, f'{name}.conv2', y, stride, dilation), 0)
      y = conv_bn(w, f'{name}.conv3', y)
      if f'{name}.shortcut.weight' in w:
        x = conv_bn(w, f'{name}.shortcut', x, stride)
      x = np.maximum(x + y, 0)
    features.append(x)
  return features


def pixel_decoder(w: Weights, features: list[np.ndarray]) -> np.ndarray:
  """Feature pyramid with nearest up-sampling."""
  name = 'sem_seg_head.pixel_decoder'
  y = np.maximum(conv_gn(w, f'{name}.layer_4', features[3]), 0)
  for i in (3, 2, 1):
    x = conv_gn(w, f'{name}.adapter_{i}', features[i - 1])
    rows = np.arange(x.shape[1]) * y.shape[1] // x.shape[1]
    columns = np.arange(x.shape[2]) * y.shape[2] // x.shape[2]
    x = x + y[:, rows][:, :, columns]
    y = np.maximum(conv_gn(w, f'{name}.layer_{i}', x), 0)
  return conv(w, f'{name}.mask_features', y)


def sine_position(height: int, width: int, channels: int) -> np.ndarray:
  """DETR's encoding, written as its loops say."""
  half = channels // 2
  table = np.zeros((height, width, channels))
  for offset, count, axis in ((0, height, 0), (half, width, 1)):
    for i in range(count):
      place = (i + 1) / (count + 1e-6) * 2 * np.pi
      for c in range(half):
        angle = place / 10000 ** (2 * (c // 2) / half)
        value = np.cos(angle) if c % 2 else np.sin(angle)
        np.moveaxis(table, axis, 0)[i, :, offset + c] = value
  return table.reshape(-1, channels)


def query_decoder(w: Weights, x: np.ndarray) -> list[np.ndarray]:
  """Returns the normalised queries after each layer."""
  name, heads = 'sem_seg_head.predictor', PROPOSER['heads']
  memory = conv(w, f'{name}.input_proj', x)
  position = sine_position(*memory.shape[1:], memory.shape[0])
  memory = memory.reshape(memory.shape[0], -1).T
  query = w[f'{name}.query_embed.weight']
  x, outputs = np.zeros_like(query), []
  for i in range(PROPOSER['layers']):
    layer = f'{name}.transformer.decoder.layers.{i}'
    at = x + query
    x = x + attention(w, f'{layer}.self_attn', at, at, x, heads)
    x = layer_norm(w, f'{layer}.norm1', x)
    at, key = x + query, memory + position
    x = x + attention(w, f'{layer}.multihead_attn', at, key, memory, heads)
    x = layer_norm(w, f'{layer}.norm2', x)
    y = np.maximum(linear(w, f'{layer}.linear1', x), 0)
    x = layer_norm(w, f'{layer}.norm3', x + linear(w, f'{layer}.linear2', y))
    outputs.append(layer_norm(w, f'{name}.transformer.decoder.norm', x))
  return outputs


def mlp(w: Weights, name: str, x: np.ndarray, layers: int) -> np.ndarray:
  """Linear layers with ReLU between."""
  for i in range(layers):
    x = linear(w, f'{name}.layers.{i}', x)
    x = np.maximum(x, 0) if i < layers - 1 else x
  return x
