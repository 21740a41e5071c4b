"""Evaluation of one OVSeg checkpoint: every image once, all classifiers at once."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.counts import check_counts
from ovs_jax.core.files import (
  Place,
  atomic_path,
  check_writable,
  write_json,
  write_text,
)
from ovs_jax.core.types import Array, Bool, Float, Int, Params
from ovs_jax.core.workers import Workers
from ovs_jax.data import load_dataset, load_names, transforms
from ovs_jax.data.pipeline import Arrays, eval_batches, examples
from ovs_jax.evaluate import oracle, tally
from ovs_jax.evaluate.counted import Counted
from ovs_jax.evaluate.distractors import distractors
from ovs_jax.models import ovseg
from ovs_jax.models.class_text import embed_names
from ovs_jax.models.mask_prompts import add_to_ovseg
from ovs_jax.ops.confusion import confusion_matrix, segmentation_scores
from ovs_jax.ops.ensemble import combine, fuse
from ovs_jax.text import vocabulary

# Void in every data set: above all classes, as the oracles need it; 255 is a class of
# the large ones.
_NO_CLASS = 2**16 - 1
_LEAST = {'eval.batch_size': 1, 'eval.bucket': 1, 'eval.save_every': 1}
_SUM, _IMAGE = 'sum/', 'image/'  # of the names of sums
_SEEN_MASK = -1  # key, among the texts of so many irrelevant names
Scores = dict[str, Any]


def evaluate(config: Any, workdir: Place) -> Scores:
  """Evaluates `config.eval.checkpoint` and writes scores.json and per_class.csv.

  The counts of each image, from which scores of resampled data sets follow, are in
  counts.npz: for every method (n, 3, k) pixels that are right, true and predicted, and
  for `crop_true_mask` and `crop_proposal` the same in crops.

  Where classes are held out, `proposer_seen` and `oracle_classes_seen` are what the
  proposer does in the world that it was trained in: seen names alone to choose from,
  and pixels of the others void.

  Returns:
    For each classifier and oracle its scores in percent, and the settings.

  Raises:
    FileNotFoundError, ValueError: no checkpoint, or of another model.
    OSError: `workdir` cannot be written.
    Stopped: SIGTERM came; what is counted will not be counted again.
  """
  began = time.time()
  check_counts(config, _LEAST)
  workdir = check_writable(workdir, megabytes=10)
  _, builder = load_dataset(config.dataset)
  names = load_names(config.dataset)
  params, stored = load_model(config.eval.checkpoint, kind='ovseg')
  model, params = add_to_ovseg(
    ovseg.OvSegConfig.from_dict(stored), params, config.init.prompts
  )
  settings = tuple((m.classifier, float(m.weight)) for m in config.eval.methods)
  texts = _embedded(config, model, params, names)
  if config.eval.dtype:  # of what sees images; names are embedded by now
    model = model.computing_in(config.eval.dtype)
  counted = Counted(workdir, index=jax.process_index(), count=jax.process_count())
  _accumulate(config, model, params, texts, builder, settings, counted)
  totals, counts = _split(counted.merged()[1])
  groups = {
    split: [k for k, s in enumerate(names.splits) if s == split]
    for split in sorted(set(names.splits) - {''})
  }
  scores: Scores = {
    'dataset': f'{config.dataset.name}/{config.dataset.variant}:{config.eval.split}',
    'vocabulary_sha256': names.sha256,
    'images': int(totals.pop('images')[0]),
    'gflops': ovseg.image_gflops(model, params, _first_size(config, builder)),
    'methods': {},
    'crops': {},
  }
  crops = {name: totals.pop(name) for name in list(totals) if name.startswith('crop_')}
  for name, matrix in totals.items():
    scores['methods'][name] = segmentation_scores(matrix, groups)
  for name, matrix in crops.items():
    scores['crops'][name.removeprefix('crop_')] = crop_accuracy(matrix, groups)
  scores['seconds'] = round(time.time() - began, 1)
  if hosts.primary():
    with atomic_path(workdir / 'counts.npz') as temporary:
      np.savez_compressed(temporary, **counts)
    write_text(workdir / 'per_class.csv', per_class_table(names, scores['methods']))
    write_json(workdir / 'scores.json', scores)
  counted.clear()
  return scores


def _embedded(
  config: Any, model: ovseg.OvSegConfig, params: Params, names: vocabulary.Vocabulary
) -> dict[int, np.ndarray]:
  """Embeddings of the classes, and so many irrelevant names after them, by number."""
  text = embed_names(model.clip, params['clip'], names.names, config.text.templates)
  texts = {0: text}
  for count in config.eval.distractors:
    more = distractors(names.names, count)
    more = embed_names(model.clip, params['clip'], more, config.text.templates)
    texts[count] = np.concatenate([text, more])
  if 'unseen' in names.splits:
    texts[_SEEN_MASK] = np.array([split == 'seen' for split in names.splits])
  return texts


def method_name(classifier: str, weight: float) -> str:
  """Returns the key of a setting in the scores, such as `ensemble_0.70`."""
  return f'ensemble_{weight:.2f}' if classifier == 'ensemble' else classifier


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _count(
  model: ovseg.OvSegConfig,
  params: Params,
  texts: Mapping[int, Float[Array, '_ d'] | Bool[Array, 'k']],
  images: Array,
  labels: Int[Array, 'b h w'],
  settings: tuple[tuple[str, float], ...],
  max_targets: int,
  side: int,
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
  """Confusion matrices of a batch, counts of each image, and label maps.

  All three are for every setting and oracle, and for the last setting among irrelevant
  names. The counts are (b, 3, k).
  """
  texts = dict(texts)
  seen = texts.pop(_SEEN_MASK, None)
  text = texts[0]
  num_classes = text.shape[0]

  def one(args: tuple[Array, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    image, label = args
    encoded = ovseg.encode_image(model, params, image, side=side)
    logits = ovseg.classify(encoded, text)
    predictions = {
      method_name(*setting): _label(encoded, logits, *setting) for setting in settings
    }
    for count in [n for n in texts if n]:
      crowded = ovseg.classify(encoded, texts[count])
      predictions[f'distractors_{count}'] = _label(encoded, crowded, *settings[-1])
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
    if seen is not None:
      counts |= _among_seen(encoded, logits, label, seen)
    for name, guess, use in (
      ('crop_true_mask', on_truth, valid),
      ('crop_proposal', on_proposals, found),
    ):
      truth = jnp.where(use, classes, _NO_CLASS)
      counts[name] = confusion_matrix(guess, truth, num_classes)
    return counts, predictions

  matrices, predictions = jax.lax.map(one, (images, labels))
  counts = {name: tally.class_counts(x) for name, x in matrices.items()}
  sums = {name: jnp.sum(x, axis=0) for name, x in matrices.items()}
  return sums, counts, predictions


def _among_seen(
  encoded: ovseg.Encoded,
  logits: tuple[Float[Array, 'q k1'], Float[Array, 'q k']],
  label: Int[Array, 'h w'],
  seen: Bool[Array, 'k'],
) -> dict[str, Int[Array, 'k1 k1']]:
  """Confusion matrices of the proposer and of true classes, without unseen classes."""
  num_classes = len(seen)
  # A label that is none gets the entry behind the last class.
  known = jnp.append(seen, False)[jnp.minimum(label, num_classes)]
  label = jnp.where(known, label, _NO_CLASS)
  weights = combine(*logits, encoded.valid, classifier='proposer', weight=0.0)
  weights = jnp.where(seen[None], weights, 0.0)
  guesses = {
    'proposer': jnp.argmax(fuse(weights, encoded.masks), axis=0),
    'oracle_classes': oracle.true_classes(encoded, label, num_classes),
  }
  return {
    f'{name}_seen': confusion_matrix(guess, label, num_classes)
    for name, guess in guesses.items()
  }


def _label(
  encoded: ovseg.Encoded,
  logits: tuple[Float[Array, 'q k1'], Float[Array, 'q k']],
  classifier: str,
  weight: float,
) -> Int[Array, 'h w']:
  weights = combine(*logits, encoded.valid, classifier=classifier, weight=weight)
  return jnp.argmax(fuse(weights, encoded.masks), axis=0)


def _accumulate(
  config: Any,
  model: ovseg.OvSegConfig,
  params: Params,
  texts: Mapping[int, np.ndarray],
  builder: Any,
  settings: tuple[tuple[str, float], ...],
  counted: Counted,
) -> None:
  """Sums the matrices of this host's images, and keeps the counts of each."""
  c = config.eval
  total = builder.info.splits[c.split].num_examples
  batches = eval_batches(
    builder,
    c.split,
    [transforms.keep('image', 'label')],
    batch_size=c.batch_size,
    bucket=c.bucket,
    start=counted.steps,
    process_index=counted.index,
    process_count=counted.count,
  )
  with Workers() as workers:
    copies = workers.copies((params, dict(texts)))

    def work(place: int, batch: Arrays) -> tuple[Arrays, Any]:
      valid = batch['example_valid'][:, None, None]
      labels = np.where(valid, batch['label'].astype(np.int32), _NO_CLASS)
      found = _count(
        model,
        *copies[place],
        batch['image'],
        labels,
        settings,
        c.max_targets,
        c.proposer_side,
      )
      *counts, predictions = jax.block_until_ready(found)
      return batch, (*counts, None if counted.steps else predictions)

    def add(result: tuple[Arrays, Any]) -> None:
      batch, (matrices, counts, predictions) = result
      if not counted.steps and hosts.primary():
        _keep_pictures(counted.directory, batch, predictions, c.pictures)
      _add(counted, total, batch['example_valid'], matrices, counts)

    counted.run(
      work,
      batches,
      add,
      total=-(-total // (c.batch_size * counted.count)),
      every=-(-c.save_every // c.batch_size),
      workers=workers,
      title=f'{config.name}: evaluate',
    )


def _add(
  counted: Counted,
  total: int,
  valid: Bool[np.ndarray, 'b'],
  matrices: Mapping[str, Array],
  counts: Mapping[str, Array],
) -> None:
  """Adds a batch: `sum/` and a method, and (total, ...) rows `image/` and a method.

  Every host has rows of its own images and zeros elsewhere.
  """
  sums = counted.sums
  first = counted.steps * len(valid)
  places = counted.index + counted.count * (first + np.arange(valid.sum()))
  sums['images'] = sums.get('images', np.zeros(1, np.int64)) + len(places)
  for name, matrix in matrices.items():
    key = f'{_SUM}{name}'
    sums[key] = sums.get(key, 0) + np.asarray(matrix, np.int64)
    rows = np.asarray(counts[name])[valid]
    key = f'{_IMAGE}{name}'
    sums.setdefault(key, np.zeros((total, *rows.shape[1:]), np.int32))[places] = rows


def _split(sums: Arrays) -> tuple[Arrays, Arrays]:
  """Returns the sums, and the rows of every image, by their own names."""
  parts = [
    {name.removeprefix(kind): x for name, x in sums.items() if name.startswith(kind)}
    for kind in (_SUM, _IMAGE)
  ]
  return {'images': sums['images'], **parts[0]}, parts[1]


def _first_size(config: Any, builder: Any) -> tuple[int, int]:
  """What the proposer sees of the first image: height and width."""
  if config.eval.proposer_side:
    return (config.eval.proposer_side,) * 2
  return next(examples(builder, config.eval.split))['image'].shape[:2]


def _keep_pictures(
  workdir: Place,
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
