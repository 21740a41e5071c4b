"""Parity of backbones, and of MaskFormer in Hugging Face's layout."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from parity_case import Case, channels_first, images

from ovs_jax.convert import backbones as convert_backbones
from ovs_jax.convert import hf_maskformer
from ovs_jax.convert.rules import apply, layer_rules
from ovs_jax.models.maskformer import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  MaskFormer,
  MaskFormerConfig,
)
from ovs_jax.models.resnet import ResNet, ResNetConfig
from ovs_jax.models.swin import Swin, SwinConfig
from ovs_jax.ops.losses import set_losses
from ovs_jax.ops.matching import match


def on_device(params: Any) -> Any:
  """Returns the parameters as JAX arrays."""
  return jax.tree.map(jnp.asarray, params)


def swin_config(c: dict[str, Any]) -> SwinConfig:
  """Returns the sizes that detectron2's keys describe."""
  return SwinConfig(
    embed_dim=c['EMBED_DIM'],
    depths=tuple(c['DEPTHS']),
    heads=tuple(c['NUM_HEADS']),
    window=c['WINDOW_SIZE'],
    drop_path=c['DROP_PATH_RATE'],
    patch=c['PATCH_SIZE'],
    mlp_ratio=int(c['MLP_RATIO']),
  )


def swin(case: Case) -> None:
  """OVSeg's Swin at sizes that fit neither patches nor windows."""
  config = swin_config(case.config['SWIN'])
  inferred, params = convert_backbones.convert(case.weights())
  case.equal('inferred config', float(inferred != config), 0.0)
  model, params = jax.jit(Swin(config).apply), on_device(params)
  for size in case.names('in/pixel_values_'):
    image = jnp.asarray(images(case.given(f'pixel_values_{size}')))
    for i, x in enumerate(model({'params': params}, image)):
      case.close(f'res{i + 2}_{size}', channels_first(x), 5e-5)


def hf_swin(c: dict[str, Any]) -> SwinConfig:
  """Returns the sizes that Hugging Face's keys describe."""
  return SwinConfig(
    embed_dim=c['embed_dim'],
    depths=tuple(c['depths']),
    heads=tuple(c['num_heads']),
    window=c['window_size'],
    patch=c['patch_size'],
  )


def swin_tiny(case: Case) -> None:
  """Hugging Face's Swin: hidden states, and the norm of the last."""
  config = hf_swin(case.config)
  weights = case.weights()
  inferred, params = convert_backbones.convert(weights)
  case.equal('inferred config', float(inferred != config), 0.0)
  last = len(config.depths) - 1
  norm = {k: v for k, v in weights.items() if k.startswith('layernorm.')}
  want = {f'norm_{last}': params[f'norm_{last}']}
  params |= apply(
    norm, layer_rules('layernorm', f'norm_{last}', 'norm'), want, what='norm'
  )
  image = jnp.asarray(images(case.given('pixel_values')))
  seen = {}

  def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    seen[context.module.name] = (args, result := call(*args, **kwargs))
    return result

  with nn.intercept_methods(note):
    features = Swin(config).apply({'params': on_device(params)}, image)
  hidden = [seen['patch_norm'][1], *(seen[f'merge_{i}'][1] for i in range(last))]
  hidden.append(seen[f'norm_{last}'][0][0])
  for i, x in enumerate(hidden):
    case.close(f'h{i}', tokens(x), 1e-4)
  case.close('last_hidden_state', tokens(features[-1]), 1e-4)


def tokens(x: Any) -> np.ndarray:
  """Returns a grid as a row-major sequence."""
  return np.asarray(x).reshape(x.shape[0], -1, x.shape[-1])


def hf_resnet(c: dict[str, Any]) -> ResNetConfig:
  """Returns the sizes that Hugging Face's keys describe."""
  widths = tuple(c['hidden_sizes'])
  doubled = tuple(widths[0] * 2**i for i in range(len(widths)))
  basic = c['layer_type'] == 'basic'
  return ResNetConfig(
    depths=tuple(c['depths']),
    stem_width=c['embedding_size'],
    bottleneck=widths[0] if basic else widths[0] // 4,
    out_width=widths[0],
    multi_grid=(1,),
    norm='frozen',
    stem='plain',
    block=c['layer_type'],
    stride_first=c.get('downsample_in_bottleneck', False),
    strides=(2 if c.get('downsample_in_first_stage') else 1, 2, 2, 2),
    widths=() if widths == doubled else widths,
  )


def resnet(case: Case) -> None:
  """Hugging Face's ResNet with either kind of block."""
  config = hf_resnet(case.config)
  inferred = convert_backbones.infer_config(case.weights())
  case.equal('inferred config', float(inferred != config), 0.0)
  config, params = convert_backbones.convert(case.weights(), config)
  image = jnp.asarray(images(case.given('pixel_values')))
  features, state = ResNet(config).apply(
    {'params': on_device(params)},
    image,
    capture_intermediates=lambda module, _: module.name == 'stem_conv1',
    mutable=['intermediates'],
  )
  (stem,) = state['intermediates']['stem_conv1']['__call__']
  pad = ((0, 0), (1, 1), (1, 1), (0, 0))
  stem = np.pad(stem, pad, constant_values=-np.inf)
  pooled = np.lib.stride_tricks.sliding_window_view(stem, (3, 3), (1, 2))
  hidden = [pooled[:, ::2, ::2].max(axis=(-2, -1)), *features]
  # Relative: activations grow to thousands, where float32 has steps of 5e-4.
  for i, x in enumerate(hidden):
    case.close(f'h{i}', channels_first(x), 1e-5, relative=True)


def maskformer_config(c: dict[str, Any], backbone: Any) -> MaskFormerConfig:
  """Returns the sizes that Hugging Face's keys describe."""
  decoder = c['decoder']
  return MaskFormerConfig(
    backbone=backbone,
    pixel_width=c['fpn_feature_size'],
    mask_dim=c['mask_feature_size'],
    groups=32,
    num_queries=decoder['num_queries'],
    width=decoder['d_model'],
    heads=decoder['decoder_attention_heads'],
    feed_forward=decoder['decoder_ffn_dim'],
    layers=decoder['decoder_layers'],
    dropout=0.1,
    embed_hidden=0,
    embed_dim=0,
    dtype='float32',
    num_classes=c['num_labels'],
  )


def maskformer(case: Case) -> None:
  """Hugging Face's MaskFormer: every part, the matching and the loss."""
  c = case.config
  sizes = hf_swin if 'window_size' in c['backbone'] else hf_resnet
  config = maskformer_config(c, sizes(c['backbone']))
  config, params = hf_maskformer.convert(case.weights(), config)
  # Theirs takes normalised pixels, ours normalises.
  pixels = images(case.given('pixel_values')).astype(np.float64)
  image = jnp.asarray(pixels * IMAGENET_STD + IMAGENET_MEAN, jnp.float32)
  out, state = MaskFormer(config).apply(
    {'params': on_device(params)},
    image,
    all_layers=True,
    capture_intermediates=lambda module, _: (
      module.name in ('backbone', 'pixel_decoder', 'query_decoder')
    ),
    mutable=['intermediates'],
  )
  inner = {k: v['__call__'][0] for k, v in state['intermediates'].items()}
  for i, x in enumerate(inner['backbone']):
    case.close(f'enc{i}', channels_first(x), 1e-4)
  case.close('pixel_embed', channels_first(inner['pixel_decoder']), 1e-4)
  case.close('queries', inner['query_decoder'][-1], 1e-4)
  case.close('class_queries_logits', out.embeddings[-1], 5e-4)
  case.close('masks_queries_logits', out.mask_logits[-1], 5e-4)
  args = (
    out.embeddings[-1],
    out.mask_logits[-1],
    jnp.asarray(case.given('class_labels'))[None].astype(jnp.int32),
    jnp.asarray(case.given('mask_labels'))[None],
    jnp.ones((1, len(case.given('class_labels'))), bool),
  )
  queries = match(*(x[None] for x in args[:2]), *args[2:])
  losses = set_losses(*args, queries[0])
  total = sum(c['weights'][name] * value for name, value in losses.items())
  case.close('loss', total, 1e-5, relative=True)
