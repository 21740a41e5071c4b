"""Parity of models: CLIP, the backbone, the heads, and OVSeg as a whole."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from parity_backbones import swin_config
from parity_case import Case, channels_first, images
from parity_ops import pool16

from ovs_jax.convert import backbones as convert_backbones
from ovs_jax.convert import clip as convert_clip
from ovs_jax.convert import maskformer as convert_maskformer
from ovs_jax.convert.rules import apply
from ovs_jax.core.types import NO_LABEL
from ovs_jax.inference.encode import EncodedImage
from ovs_jax.inference.ovseg import OTHERS, OvSegSystem
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.inference.settings import Settings
from ovs_jax.inference.weigh import weigh
from ovs_jax.models.clip import Clip, ClipConfig, encode_prompts, unit
from ovs_jax.models.clip_blocks import ClipBlock
from ovs_jax.models.layers import sine_position
from ovs_jax.models.maskformer import PRESETS, MaskFormer, MaskFormerConfig
from ovs_jax.models.ovseg import (
  OvSegConfig,
  classify,
  embed_regions,
  encode_image,
  pad_image,
)
from ovs_jax.models.resnet import ResNet, ResNetConfig
from ovs_jax.ops.ensemble import TEMPERATURE, class_logits, combine, fuse
from ovs_jax.ops.painting import label_map
from ovs_jax.ops.regions import RegionConfig, crop_regions, patch_mask
from ovs_jax.ops.resize import resize_bilinear
from ovs_jax.text.templates import fill
from ovs_jax.text.tokenizer import tokenize

# Only the rule matters; names are given their templates in each call.
DEMO = Settings(
  shortest=640, longest=2560, templates='vild', classifier='clip', weight=0.0
)
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def clip_config(c: dict[str, Any], inferred: ClipConfig) -> ClipConfig:
  """Returns the stored sizes where they are named, and checks the inferred ones."""
  sizes = dataclasses.replace(
    inferred,
    embed_dim=c['embed_dim'],
    image_size=c['image_resolution'],
    patch=c['vision_patch_size'],
    vision_width=c['vision_width'],
    vision_layers=c['vision_layers'],
    text_width=c['transformer_width'],
    text_layers=c['transformer_layers'],
    text_heads=c['transformer_heads'],
    context_length=c['context_length'],
    vocab_size=c['vocab_size'],
  )
  return dataclasses.replace(
    sizes,
    vision_heads=c.get('vision_heads', sizes.vision_heads),
    prompt_depth=c.get('mask_prompt_depth', sizes.prompt_depth),
  )


def on_device(params: Any) -> Any:
  """Returns the parameters as JAX arrays."""
  return jax.tree.map(jnp.asarray, params)


def load_clip(case: Case) -> tuple[ClipConfig, Any]:
  """Converts the case's CLIP and compares its inferred sizes with the stored ones."""
  inferred = convert_clip.infer_config(case.weights())
  config = clip_config(case.config, inferred)
  case.equal('inferred config', float(config != inferred), 0.0)
  config, params = convert_clip.convert(case.weights(), config)
  return config, on_device(params)


def clip_mask_prompt(case: Case) -> None:
  """CLIP with deep mask prompts."""
  config, params = load_clip(case)
  model, variables = Clip(config), {'params': params}
  image = jnp.asarray(images(case.given('pixel_values')))
  masks = jnp.asarray(case.given('pixel_masks')[:, 0], jnp.float32)
  keep = patch_mask(masks, config.patch)
  case.equal('patch_mask', np.asarray(keep).reshape(case.expected('patch_mask').shape))
  masked = model.apply(variables, image, keep, method='encode_image')
  plain = model.apply(variables, image, method='encode_image')
  tokens = jnp.asarray(case.given('input_ids'))
  text = model.apply(variables, tokens, method='encode_text')
  case.close('image_features_masked', masked, 1e-4)
  case.close('image_features_plain', plain, 1e-4)
  case.close('text_features', text, 1e-4)
  logits = class_logits(masked, unit(text))
  case.close('logits_masked_t100', logits, 1e-3)
  case.close('logits_plain_t100', class_logits(plain, unit(text)), 1e-3)
  scale = jnp.exp(params['logit_scale']) / TEMPERATURE
  case.close('logits_masked_logit_scale', logits * scale, 1e-3)
  case.close('probs_masked_t100', jax.nn.softmax(logits), 1e-4)
  for i, raw in enumerate(block_outputs(config, params, image, keep)):
    name = f'vision_block{i}_raw_masked'
    count, tokens, _ = case.expected(name).shape
    case.close(name, raw[:count, :tokens], 1e-4)


def block_outputs(config: ClipConfig, params: Any, image: Any, keep: Any) -> list[Any]:
  """Returns what each vision block gives before the prompts overwrite it."""
  _, state = Clip(config).apply(
    {'params': params},
    image,
    keep,
    method='encode_image',
    capture_intermediates=lambda module, _: module.name == 'ln_pre',
    mutable=['intermediates'],
  )
  (x,) = state['intermediates']['visual']['ln_pre']['__call__']
  block = ClipBlock(config.vision)
  outputs = []
  for i in range(config.vision_layers):
    one = {'params': jax.tree.map(lambda p, i=i: p[i], params['visual']['blocks'])}
    x = block.apply(one, x)
    outputs.append(x)
    if i + 1 < config.prompt_depth:
      prompt = params['visual']['mask_prompt'][i + 1]
      patches = jnp.where(keep[:, :, None], x[:, 1:], prompt[None])
      x = jnp.concatenate([x[:, :1], patches], axis=1)
  return outputs


def resnet_config(c: dict[str, Any]) -> ResNetConfig:
  """Returns the sizes that detectron2's keys describe."""
  return ResNetConfig(
    depths=DEPTHS[c['DEPTH']],
    stem_width=c['STEM_OUT_CHANNELS'] // 2,
    bottleneck=c['WIDTH_PER_GROUP'] * c['NUM_GROUPS'],
    out_width=c['RES2_OUT_CHANNELS'],
    multi_grid=tuple(c['RES5_MULTI_GRID']),
    norm={'FrozenBN': 'frozen'}[c['NORM']],
  )


def r101c(case: Case) -> None:
  """The backbone at several sizes."""
  config = resnet_config(case.config['RESNETS'])
  model = ResNet(config)
  sizes = case.names('in/pixel_values_')
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  )
  rules = convert_backbones.rules('resnet', config)
  params = apply(case.weights(), rules, shapes['params'], what=case.name)
  params = on_device(params)
  for size in sizes:
    image = jnp.asarray(images(case.given(f'pixel_values_{size}')))
    features, state = model.apply(
      {'params': params},
      image,
      capture_intermediates=lambda module, _: module.name == 'stem_conv3',
      mutable=['intermediates'],
    )
    (stem,) = state['intermediates']['stem_conv3']['__call__']
    stem = nn.max_pool(stem, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    case.close(f'stem_{size}', channels_first(stem), 1e-4)
    for i, x in enumerate(features):
      case.close(f'res{i + 2}_{size}', channels_first(x), 1e-4)


def proposer_config(c: dict[str, Any], backbone: Any, groups: int) -> MaskFormerConfig:
  """Returns the sizes that detectron2's keys describe."""
  head, former = c['SEM_SEG_HEAD'], c['MASK_FORMER']
  return MaskFormerConfig(
    backbone=backbone,
    pixel_width=head['CONVS_DIM'],
    mask_dim=head['MASK_DIM'],
    groups=groups,
    num_queries=former['NUM_OBJECT_QUERIES'],
    width=former['HIDDEN_DIM'],
    heads=former['NHEADS'],
    feed_forward=former['DIM_FEEDFORWARD'],
    layers=former['DEC_LAYERS'],
    dropout=former['DROPOUT'],
    embed_hidden=head['EMBED_HIDDEN_DIM'],
    embed_dim=head['EMBEDDING_DIM'],
    dtype='float32',
  )


def maskformer_head(case: Case) -> None:
  """Pixel decoder, query decoder and heads on given backbone features."""
  c = case.config
  config = proposer_config(c, 'tiny', c['group_norm_groups'])
  levels = c['SEM_SEG_HEAD']['IN_FEATURES']
  features = [jnp.asarray(images(case.given(level))) for level in levels]
  model = MaskFormer(config)
  image = jnp.zeros((features[0].shape[0], 32, 32, 3))

  def instead(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if isinstance(context.module, ResNet):
      return features
    return call(*args, **kwargs)

  with nn.intercept_methods(instead):
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
    shapes = {k: v for k, v in shapes.items() if k != 'no_object'}
    params = apply(
      case.weights(), convert_maskformer.head_rules(''), shapes, what=case.name
    )
    params['no_object'] = np.ones((1, config.embed_dim), np.float32)
    params = on_device(params)
    out, state = model.apply(
      {'params': params},
      image,
      all_layers=True,
      capture_intermediates=lambda module, _: module.name == 'pixel_decoder',
      mutable=['intermediates'],
    )
  (pixels,) = state['intermediates']['pixel_decoder']['__call__']
  case.close('mask_features', channels_first(pixels), 5e-5)
  b, y, x = features[-1].shape[:3]
  position = sine_position(y, x, config.width).reshape(1, y, x, config.width)
  position = np.repeat(channels_first(position), b, axis=0)
  case.close('position_encoding', position, 5e-5)
  for layer in range(config.layers):
    name = f'aux{layer}_pred' if layer < config.layers - 1 else 'pred'
    case.close(f'{name}_embeddings', out.embeddings[layer], 3e-4)
    case.close(f'{name}_masks', out.mask_logits[layer], 1e-3)


def ovseg_full(case: Case) -> None:
  """The whole model on a photo, from names to label maps."""
  config, params = load_ovseg(case)
  image = images(case.given('image_network_chw_uint8'))
  h, w = image.shape[:2]
  padded = jnp.asarray(pad_image(image, 32))
  case.equal('padded_input_hw', padded.shape[:2])
  encoded = jax.jit(lambda p, x: encode_image(config, p, x, jnp.array([h, w])))(
    params, padded
  )
  proposer = MaskFormer(config.proposer)
  out, state = proposer.apply(
    {'params': params['proposer']},
    padded[None],
    capture_intermediates=lambda module, _: module.name == 'backbone',
    mutable=['intermediates'],
  )
  (features,) = state['intermediates']['backbone']['__call__']
  case.close('res5', channels_first(features[-1][0]), 1e-4)
  case.close('mask_logits_stride4', out.mask_logits[-1, 0], 1e-3)
  case.close('pred_embeddings', encoded.embeddings, 3e-4)
  text = ovseg_text(case, config, params, encoded)
  logits, clip_logits = classify(encoded, text)
  case.close('pred_logits', logits, 2e-3)
  ovseg_regions(case, config, params, encoded, padded, clip_logits)
  size = tuple(case.config['original_hw'])
  masks = encoded.masks[:, :h, :w]
  for name, classifier, weight in (
    ('lambda0p7', 'ensemble', 0.7),
    ('lambda0p45', 'ensemble', 0.45),
    ('lambda0_clip_only', 'ensemble', 0.0),
    ('ensemble_off', 'proposer', 0.0),
  ):
    ovseg_labels(
      case,
      name,
      combine(logits, clip_logits, encoded.valid, classifier=classifier, weight=weight),
      masks,
      size,
    )
  image = EncodedImage(size, (h, w), dataclasses.replace(encoded, masks=masks))
  system = OvSegSystem(config, params, settings=DEMO, text_cache='off')
  ovseg_demo(case, Segmenter(system), image)


def load_ovseg(case: Case) -> tuple[OvSegConfig, Any]:
  """Converts both parts of the model."""
  c, reference = case.config, case.config['reference_config']
  weights = case.weights()
  if 'SWIN' in reference:
    backbone = swin_config(reference['SWIN'])
  else:
    backbone = resnet_config(reference['RESNETS'])
  proposer, proposer_params = convert_maskformer.convert(
    weights, proposer_config(reference, backbone, PRESETS['r101c_b16'].groups)
  )
  clip = clip_config(c['clip'], convert_clip.infer_config(weights))
  clip, clip_params = convert_clip.convert(weights, clip)
  adapter = reference['CLIP_ADAPTER']
  region = RegionConfig(
    size=clip.image_size,
    threshold=adapter['MASK_THR'],
    fill=adapter['MASK_FILL'],
    expand=adapter['MASK_EXPAND_RATIO'],
    matting=adapter['MASK_MATTING'],
  )
  config = OvSegConfig(proposer=proposer, clip=clip, region=region, chunk=8)
  return config, on_device({'proposer': proposer_params, 'clip': clip_params})


def ovseg_text(case: Case, config: OvSegConfig, params: Any, encoded: Any) -> Any:
  """Checks ids and embeddings of the class names; returns the embeddings."""
  names, templates = case.config['class_names'], case.config['templates']
  prompts = fill(templates, names)
  ids = np.stack([tokenize(sentences) for sentences in prompts], axis=1)
  case.equal('prompt_token_ids', ids, case.given('prompt_token_ids'))
  text = jnp.asarray(encode_prompts(config.clip, params['clip'], prompts, tokenize))
  both = jnp.concatenate([text, encoded.no_object])
  case.close('text_features_with_no_object', both, 1e-5)
  return text


def ovseg_regions(
  case: Case, config: OvSegConfig, params: Any, encoded: Any, image: Any, logits: Any
) -> None:
  """Checks crops and CLIP's view of them."""
  valid = np.asarray(encoded.valid)
  case.equal('valid', valid)
  areas = jnp.sum(encoded.masks > config.region.threshold, axis=(1, 2))
  case.equal('mask_areas_above_thr', areas)
  regions = crop_regions(image, encoded.masks, config.region)
  keep = patch_mask(regions.masks, config.clip.patch)[valid]
  want = case.expected('patch_masks')
  case.equal('patch_masks', np.asarray(keep).reshape(want.shape))
  pooled = pool16(channels_first(regions.pixels)[valid])
  case.close('crops_pool16', pooled, 1e-4)
  count = logits.shape[1]
  want = case.expected('clip_logits')[:, :count]
  case.compare('clip_logits', logits[valid], want, 3e-3)
  case.close('clip_probs', jax.nn.softmax(logits)[valid], 3e-3)
  clip = dataclasses.replace(config.clip, prompt_depth=0)
  without = dataclasses.replace(config, clip=clip)
  plain = embed_regions(without, params['clip'], regions)
  text = encode_prompts(
    config.clip,
    params['clip'],
    fill(case.config['templates'], case.config['class_names']),
    tokenize,
  )
  got = class_logits(plain, jnp.asarray(text))[valid]
  name = 'clip_logits_without_mask_prompt'
  case.compare(name, got, case.expected(name)[:, :count], 3e-3)


def ovseg_labels(case: Case, name: str, weights: Any, masks: Any, size: Any) -> None:
  """Checks scores and labels of one setting."""
  labels, best = label_map(weights, masks, size)
  case.agree(f'labels_{name}', labels, 0.999)
  scores = resize_bilinear(fuse(weights, masks), size)
  case.close(f'sem_seg_{name}_sub4', scores[:, ::4, ::4], 2e-4)
  case.compare(f'best score {name}', best, scores.max(axis=0), 1e-6)
  if f'sem_seg_{name}_f16' in case.names('out/'):
    case.close(f'sem_seg_{name}_f16', scores, 2e-3)


def ovseg_demo(case: Case, segmenter: Segmenter, image: EncodedImage) -> None:
  """Checks the demo's rule, for all names and for a single one."""
  names, templates = case.config['class_names'], case.config['templates']
  single = case.config['demo']['single_class']
  masks = image.encoded.masks > segmenter.system.config.region.threshold
  for prefix, asked, embedded, choosing in (
    ('demo', names, names, len(names)),
    ('demo_single_class', [single], [single, OTHERS], 1),
  ):
    result = segmenter.segment(image, asked, templates=templates, rule='demo')
    labels = result.labels
    if len(asked) == 1:
      # The reference paints 'others' too, and then skips it: see its picture, not it.
      want = case.expected(f'{prefix}_labels_blank255')
      case.compare(f'{prefix}: pixels of the name', labels == 0, want == 0, 0.0)
    else:
      labels = np.where(labels == NO_LABEL, 255, labels)
      case.agree(f'{prefix}_labels_blank255', labels, 0.999)
    rows = segmenter.embed_names(embedded, templates=templates)
    owner = np.arange(len(rows), dtype=np.int32)
    weights, _, _ = weigh(
      image.encoded,
      rows,
      owner,
      choosing=choosing,
      rule='demo',
      classifier='clip',
      weight=0.0,
    )
    scores = fuse(weights[:, : len(rows)], masks.astype(jnp.float32))
    scores = resize_bilinear(scores, image.size)
    case.close(f'{prefix}_sem_seg_sub4', scores[:, ::4, ::4], 2e-4)
