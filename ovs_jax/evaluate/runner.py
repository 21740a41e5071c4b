"""Evaluation of one OVSeg checkpoint: every image once, all classifiers at once."""

import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.files import atomic_path, check_writable, write_json, write_text
from ovs_jax.core.runlog import progress
from ovs_jax.core.types import Array, Float, Int, Params
from ovs_jax.data import load_dataset, load_names, transforms
from ovs_jax.data.pipeline import eval_batches
from ovs_jax.evaluate import oracle
from ovs_jax.models import ovseg
from ovs_jax.models.class_text import embed_names
from ovs_jax.models.mask_prompts import add_to_ovseg
from ovs_jax.ops.confusion import confusion_matrix, segmentation_scores
from ovs_jax.ops.ensemble import combine, fuse
from ovs_jax.text import vocabulary

# Void in every data set: above all classes, as the oracles need it; 255 is a class of
# the large ones.
_NO_CLASS = 2**16 - 1
Scores = dict[str, Any]


def evaluate(config: Any, workdir: pathlib.Path) -> Scores:
  """Evaluates `config.eval.checkpoint` and writes scores.json and per_class.csv.

  Returns:
    For each classifier and oracle its scores in percent, and the settings.

  Raises:
    FileNotFoundError, ValueError: no checkpoint, or of another model.
    OSError: `workdir` cannot be written.
  """
  began = time.time()
  workdir = check_writable(workdir, megabytes=10)
  _, builder = load_dataset(config.dataset)
  names = load_names(config.dataset)
  params, stored = load_model(config.eval.checkpoint, kind='ovseg')
  model, params = add_to_ovseg(
    ovseg.OvSegConfig.from_dict(stored), params, config.init.prompts
  )
  text = embed_names(model.clip, params['clip'], names.names, config.text.templates)
  settings = tuple((m.classifier, float(m.weight)) for m in config.eval.methods)
  totals = _accumulate(config, model, params, text, builder, settings, workdir)
  groups = {
    split: [k for k, s in enumerate(names.splits) if s == split]
    for split in sorted(set(names.splits) - {''})
  }
  scores: Scores = {
    'dataset': f'{config.dataset.name}/{config.dataset.variant}:{config.eval.split}',
    'vocabulary_sha256': names.sha256,
    'images': int(totals.pop('images')),
    'methods': {},
    'crops': {},
  }
  crops = {name: totals.pop(name) for name in list(totals) if name.startswith('crop_')}
  for name, matrix in totals.items():
    scores['methods'][name] = segmentation_scores(matrix, groups)
  for name, matrix in crops.items():
    scores['crops'][name.removeprefix('crop_')] = crop_accuracy(matrix, groups)
  scores['seconds'] = round(time.time() - began, 1)
  write_json(workdir / 'scores.json', scores)
  write_text(workdir / 'per_class.csv', per_class_table(names, scores['methods']))
  return scores


def method_name(classifier: str, weight: float) -> str:
  """Returns the key of a setting in the scores, such as `ensemble_0.70`."""
  return f'ensemble_{weight:.2f}' if classifier == 'ensemble' else classifier


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def _count(
  model: ovseg.OvSegConfig,
  params: Params,
  text: Float[Array, 'k d'],
  images: Array,
  labels: Int[Array, 'b h w'],
  settings: tuple[tuple[str, float], ...],
  max_targets: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Confusion matrices of a batch and the label maps, for every setting and oracle."""
  num_classes = text.shape[0]

  def one(args: tuple[Array, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    image, label = args
    encoded = ovseg.encode_image(model, params, image)
    logits = ovseg.classify(encoded, text)
    predictions = {}
    for classifier, weight in settings:
      weights = combine(*logits, encoded.valid, classifier=classifier, weight=weight)
      scores = fuse(weights, encoded.masks)
      predictions[method_name(classifier, weight)] = jnp.argmax(scores, axis=0)
    classes, masks, valid = oracle.true_masks(label, num_classes, max_targets)
    on_truth = oracle.classify_masks(model, params['clip'], image, masks, text)
    predictions['oracle_masks'] = oracle.paint(masks, on_truth, valid)
    predictions['oracle_classes'] = oracle.true_classes(encoded, label, num_classes)
    matched, found = oracle.best_proposals(encoded, masks, valid)
    on_proposals = jnp.argmax(logits[1], axis=1)[matched]
    counts = {
      name: confusion_matrix(prediction, label, num_classes)
      for name, prediction in predictions.items()
    }
    for name, guess, use in (
      ('crop_true_mask', on_truth, valid),
      ('crop_proposal', on_proposals, found),
    ):
      truth = jnp.where(use, classes, _NO_CLASS)
      counts[name] = confusion_matrix(guess, truth, num_classes)
    return counts, predictions

  counts, predictions = jax.lax.map(one, (images, labels))
  return {name: jnp.sum(x, axis=0) for name, x in counts.items()}, predictions


def _accumulate(
  config: Any,
  model: ovseg.OvSegConfig,
  params: Params,
  text: np.ndarray,
  builder: Any,
  settings: tuple[tuple[str, float], ...],
  workdir: pathlib.Path,
) -> dict[str, np.ndarray]:
  """Sums the matrices of all images in 64-bit integers."""
  total = builder.info.splits[config.eval.split].num_examples
  batches = eval_batches(
    builder,
    config.eval.split,
    [transforms.keep('image', 'label')],
    batch_size=config.eval.batch_size,
    bucket=config.eval.bucket,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  steps = -(-total // (config.eval.batch_size * jax.process_count()))
  params = jax.tree.map(jnp.asarray, params)
  sums: dict[str, np.ndarray] = {}
  images = 0
  for batch in progress(batches, total=steps, title=f'{config.name}: evaluate'):
    labels = batch['label'].astype(np.int32)
    labels = np.where(batch['example_valid'][:, None, None], labels, _NO_CLASS)
    counts, predictions = _count(
      model,
      params,
      jnp.asarray(text),
      jnp.asarray(batch['image']),
      jnp.asarray(labels),
      settings,
      config.eval.max_targets,
    )
    if not images:
      _keep_pictures(workdir, batch, predictions, config.eval.pictures)
    images += int(batch['example_valid'].sum())
    for name, matrix in counts.items():
      sums[name] = sums.get(name, 0) + np.asarray(matrix, np.int64)
  return {**sums, 'images': np.int64(images)}


def _keep_pictures(
  workdir: pathlib.Path,
  batch: Mapping[str, np.ndarray],
  predictions: Mapping[str, Array],
  count: int,
) -> None:
  """Keeps the first images, their truth and their label maps for the report."""
  with atomic_path(workdir / 'pictures.npz') as temporary:
    np.savez_compressed(
      temporary,
      image=batch['image'][:count],
      label=batch['label'][:count],
      **{name: np.asarray(x[:count], np.int16) for name, x in predictions.items()},
    )


def crop_accuracy(
  matrix: Int[np.ndarray, 'k1 k1'], groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
  """Class-balanced top-1 accuracy in percent, and of each group of classes."""
  counts = np.asarray(matrix, np.float64)[:-1, :-1]
  present = counts.sum(0) > 0
  right = np.diag(counts) / np.maximum(counts.sum(0), 1)

  def mean(classes: Sequence[int]) -> float:
    members = [k for k in classes if present[k]]
    return float(100 * right[members].mean()) if members else float('nan')

  scores = {'all': mean(range(len(right))), 'count': float(counts.sum())}
  return {**scores, **{name: mean(classes) for name, classes in groups.items()}}


def per_class_table(names: vocabulary.Vocabulary, methods: Mapping[str, Any]) -> str:
  """Returns CSV: a line per class, its IoU in percent under every method."""
  lines = [','.join(['class', 'split', *methods])]
  for k, name in enumerate(names.names):
    values = [f'{methods[m]["iou_per_class"][k]:.2f}' for m in methods]
    lines.append(','.join([f'"{name}"', names.splits[k], *values]))
  return '\n'.join(lines) + '\n'
