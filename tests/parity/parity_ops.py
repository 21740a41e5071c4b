"""Parity of array functions: crops, set loss, confusion matrix, tokenizer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from parity_case import Case, channels_first, images

from ovs_jax.ops.confusion import confusion_matrix, count_pixels, segmentation_scores
from ovs_jax.ops.losses import SET_WEIGHTS, set_losses
from ovs_jax.ops.matching import match
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD, RegionConfig, crop_regions
from ovs_jax.text.tokenizer import tokenize


def tokenizer(case: Case) -> None:
  """Ids of strings, truncated."""
  c = case.config
  ids = tokenize(
    case.json('in/strings_json'),
    context_length=c['context_length'],
    truncate=c['truncate'],
  )
  case.equal('ids', ids)
  case.expected('unchanged_without_ftfy')  # says where the clean-up matters, no output


def region_crops(case: Case) -> None:
  """Crops of soft masks with every setting of fill, matting and expansion."""
  c = case.config
  image = jnp.asarray(images(case.given('image_chw_uint8')))
  masks = jnp.asarray(case.given('soft_masks'))
  valid = case.expected('valid')

  def cut(**changes: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    settings = {**c, **changes}
    config = RegionConfig(
      size=c['region_size'],
      threshold=c['mask_thr'],
      fill=settings['mask_fill'],
      expand=settings['mask_expand_ratio'],
      matting=settings['mask_matting'],
    )
    regions = jax.jit(lambda i, m: crop_regions(i, m, config))(image, masks)
    pixels = channels_first(regions.pixels)[valid]
    return pixels, np.asarray(regions.masks)[valid], regions

  pixels, shown, regions = cut()
  case.equal('valid', regions.valid)
  case.equal('boxes_xyxy_exclusive', np.asarray(regions.boxes)[valid])
  packed = np.packbits(shown.astype(np.uint8), axis=-1)
  case.equal('crop_masks_packed', packed)
  rows, some, full = c['rows'], c['variant_rows'], c['full_crop_rows_in_valid_order']
  case.close('crops_normalised_rows', pixels[:, :, rows], 1e-4)
  case.close('crops_normalised_cols', pixels[..., c['cols']], 1e-4)
  for name in ('mean', 'std', 'min', 'max'):
    values = getattr(pixels.astype(np.float64), name)(axis=(2, 3))
    case.close(f'crops_normalised_{name}', values, 1e-4)
  case.close('crops_normalised_pool16', pool16(pixels), 1e-4)
  mean, std = (np.array(x).reshape(1, 3, 1, 1) * 255 for x in (CLIP_MEAN, CLIP_STD))
  raw = pixels[:, :, rows] * std + mean
  case.close('crops_unnormalised_rows', raw, 5e-3)
  case.close('full_crops_normalised_f16', pixels[full], 2e-3)
  for name, changes in c['variants'].items():
    pixels, shown, _ = cut(**changes)
    case.close(f'{name}_rows', pixels[:, :, some], 1e-4)
    case.close(f'{name}_pool16', pool16(pixels), 1e-4)
    if name != 'zero_fill':
      case.equal(f'{name}_mask_rows', shown[:, some])


def pool16(pixels: np.ndarray) -> np.ndarray:
  """Means over blocks of 16x16 pixels."""
  *lead, h, w = pixels.shape
  blocks = pixels.reshape(*lead, h // 16, 16, w // 16, 16)
  return blocks.mean(axis=(-3, -1))


def criterion(case: Case) -> None:
  """Matching, losses and their gradients, for every decoder layer."""
  c = case.config
  # One padded target everywhere, as far as there are queries.
  count = min(max(c['counts']) + 1, case.given('pred_logits').shape[1])
  targets = padded_targets(case, count)
  layers = [''] + [f'_aux{i}' for i in range(c['aux_layers'])]
  outputs = [
    tuple(jnp.asarray(case.given(f'pred_{x}{s}')) for x in ('logits', 'masks'))
    for s in layers
  ]

  @jax.jit
  def total(outputs: list[Any]) -> tuple[Any, Any]:
    value, parts, found = 0.0, [], []
    for logits, masks in outputs:
      queries = match(logits[None], masks[None], *targets)[0]
      losses = set_losses(logits, masks, *targets, queries)
      value += sum(SET_WEIGHTS[name] * loss for name, loss in losses.items())
      parts.append(losses)
      found.append(queries)
    return value, (parts, found)

  (value, (parts, found)), grads = jax.value_and_grad(total, has_aux=True)(outputs)
  case.close('total_weighted', value, 1e-5, relative=True)
  case.equal('num_masks', max(sum(c['counts']), 1))
  for suffix, losses, queries, grad in zip(layers, parts, found, grads, strict=True):
    number = suffix.replace('aux', '')
    for name, loss in losses.items():
      case.close(f'loss_{name}{number}', loss, 1e-5, relative=True)
    for b, size in enumerate(c['counts']):
      pairs = sorted(zip(np.asarray(queries)[b, :size], range(size), strict=True))
      got = np.array(pairs, np.int32).reshape(size, 2).T
      case.equal(f'match{suffix}_image{b}', got)
    case.close(f'grad_pred_logits{suffix}', grad[0], 1e-6)
    case.close(f'grad_pred_masks{suffix}', grad[1], 1e-6)


def padded_targets(case: Case, count: int) -> tuple[Any, Any, Any]:
  """Returns labels (b, t), masks (b, t, h, w) and which of them are real."""
  labels, masks, valid = [], [], []
  for b in range(case.config['batch']):
    label, mask = case.given(f'labels_{b}'), case.given(f'masks_{b}')
    pad = count - len(label)
    labels.append(np.pad(label, (0, pad)))
    masks.append(np.pad(mask.astype(np.float32), ((0, pad), (0, 0), (0, 0))))
    valid.append(np.arange(count) < len(label))
  return tuple(jnp.asarray(np.stack(x)) for x in (labels, masks, valid))


def evaluator(case: Case) -> None:
  """Confusion matrix over several images, and the scores that follow."""
  k = case.config['num_classes']
  # One call on all pixels: the images differ in size and would compile one by one.
  names = sorted(case.names('in/gt_'))
  label, prediction = (
    np.concatenate([case.given(f'{x}_{name}').ravel() for name in names])
    for x in ('gt', 'pred')
  )
  total = confusion_matrix(
    jnp.asarray(prediction, jnp.int32), jnp.asarray(label, jnp.int32), k
  )
  total = np.asarray(total, np.int64)
  case.equal('conf_matrix', total)
  case.compare(
    'conf_matrix on the host', count_pixels(prediction, label, k), total, 0.0
  )
  scores = segmentation_scores(total)
  case.close('mIoU_old', scores['miou_predicted_too'], 1e-12, relative=True)
  case.close('mIoU_new', scores['miou'], 1e-12, relative=True)
  for version in ('old', 'new'):
    for name, ours in (
      ('fwIoU', 'fwiou'),
      ('mACC', 'mean_accuracy'),
      ('pACC', 'pixel_accuracy'),
      ('iou_per_class', 'iou_per_class'),
      ('acc_per_class', 'accuracy_per_class'),
    ):
      case.close(f'{name}_{version}', scores[ours], 1e-12, relative=True)
