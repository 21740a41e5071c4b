"""Mode `evaluate`: one data set, and all that its report and replications need.

It counts what mode `benchmark` counts, in the same way (`evaluate.suite`), and parts of
the model beside it.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  atomic_path,
  check_writable,
  write_json,
  write_text,
)
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.types import VOID_16, Int
from ovs_jax.core.workers import Workers
from ovs_jax.evaluate import sources, suite, tables
from ovs_jax.evaluate.counted import Counted
from ovs_jax.evaluate.judges import ModelJudge, Plan, distracted
from ovs_jax.evaluate.network import Changes, Network, Setting
from ovs_jax.evaluate.scores import groups_of
from ovs_jax.evaluate.tally import Tally
from ovs_jax.models import ovseg
from ovs_jax.ops.confusion import segmentation_scores
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

_CROPS = 'crop_'  # tallies of crops, not of pixels
Scores = dict[str, Any]


def evaluate(config: Settings, workdir: Place) -> Scores:
  """Evaluates `config.eval.checkpoint` and writes scores.json and per_class.csv.

  The counts of each image, from which scores of resampled data sets follow, are in
  counts.npz: for every method (n, 3, k) pixels that are right, true and predicted, and
  for `crop_true_mask` and `crop_proposal` the same in crops; images in the order of
  their ids.

  Returns:
    For each classifier and oracle its scores in percent, and the settings.

  Raises:
    FileNotFoundError, ValueError: no checkpoint, or of another model.
    OSError: `workdir` cannot be written.
    Stopped: SIGTERM came; what is counted will not be counted again.
  """
  began = time.time()
  if config.suite.masks:
    raise UserError(
      'config.suite.masks takes the place of proposals, whose parts mode evaluate '
      "measures; take config.mode='benchmark'"
    )
  workdir = check_writable(workdir, megabytes=10)
  c = config.eval
  target = sources.Target(config.dataset.name, config.dataset.variant, c.split)
  [source] = sources.load_sources(config, [target])
  models = (c.checkpoint, config.init.prompts, *config.test.clips)
  counted = Counted(workdir, models=models)
  judge, tallies = _count(config, source, counted)
  tallies.pop(distracted(0), None)  # the headline once more
  first = list(itertools.islice(sources.samples(source), max(1, c.pictures)))
  scores: Scores = {
    'dataset': str(target),
    'vocabulary_sha256': source.names.sha256,
    'images': len(tallies[judge.headline].images),
    'settings': judge.network.describe(),
    'gflops': _gflops(judge.network, first[0]),
    **_scores(tallies, source.names),
  }
  scores['seconds'] = round(time.time() - began, 1)
  if hosts.primary():
    with atomic_path(workdir / 'counts.npz') as temporary:
      counts = {name: tally.table() for name, tally in tallies.items()}
      np.savez_compressed(temporary, **counts)
    write_text(
      workdir / 'per_class.csv', per_class_table(source.names, scores['methods'])
    )
    _keep_pictures(workdir, judge, first[: c.pictures])
    write_json(workdir / 'scores.json', scores)
    print(_shown(scores), flush=True)
  counted.clear()
  return scores


def _shown(scores: Scores) -> str:
  """Returns what a run prints at its end."""
  titles = ['method', *tables.MIOUS, 'pixels right']
  keys = (*tables.MIOUS.values(), 'pixel_accuracy')
  rows = [
    [name, *(tables.number(found[key]) for key in keys)]
    for name, found in scores['methods'].items()
  ]
  whole = f'{scores["images"]} images of {scores["dataset"]}. Percent.'
  return '\n'.join([whole, '', *tables.markdown(titles, rows)]).rstrip('\n')


def _count(
  config: Settings, source: sources.Source, counted: Counted
) -> tuple[ModelJudge, dict[str, Tally]]:
  """Counts what is left, in all of `config.eval.methods` and with all oracles."""
  c = config.eval
  if c.propose != 'proposer':
    raise UserError(
      f"config.eval.propose='{c.propose}' is of mode benchmark: here classifiers are "
      'compared, and one is a proposer'
    )
  plan = Plan(
    settings=tuple(Setting(m.classifier, m.weight) for m in c.methods),
    distractors=tuple(sorted(c.distractors)),
    distractor_images=0,
    near=config.suite.near,
    single_concepts=False,
    parts=True,
  )
  with Workers() as workers:
    network = Network(c.checkpoint, changes=Changes.of(config), workers=workers)
    judge = ModelJudge(network, source.names, plan)
    title = f'{config.name}: evaluate'
    tallies, _ = suite.count_all(
      config, judge, source, counted, title=title, workers=workers
    )
  return judge, tallies


def _scores(tallies: Mapping[str, Tally], names: vocabulary.Vocabulary) -> Scores:
  """The scores of pixels under every method, and of crops."""
  groups = groups_of(names)
  splits = {name: x for name, x in groups.items() if name in names.splits}
  return {
    'methods': {
      name: segmentation_scores(tally.matrix, groups)
      for name, tally in tallies.items()
      if not name.startswith(_CROPS)
    },
    'crops': {
      name.removeprefix(_CROPS): crop_accuracy(tally.matrix, splits)
      for name, tally in tallies.items()
      if name.startswith(_CROPS)
    },
  }


def _gflops(network: Network, sample: sources.Sample) -> dict[str, float]:
  """What the first image costs."""
  side = network.changes.proposer_side
  small = resize_shortest(
    sample.image, shortest=network.shortest, longest=network.longest
  )
  size = (side, side) if side else small.shape[:2]
  return ovseg.image_gflops(network.model, network.params, size)


def _keep_pictures(
  workdir: Place, judge: ModelJudge, samples: Sequence[sources.Sample]
) -> None:
  """Keeps the first images, their truth and their label maps for the report.

  All have the size of the largest; beside an image is black, and nothing in its maps.
  """
  if not samples:
    return
  maps = [judge.look(sample).maps for sample in samples]
  size = np.max([sample.label.shape for sample in samples], axis=0)

  def fill(arrays: Sequence[np.ndarray], value: int, dtype: Any) -> np.ndarray:
    whole = np.full((len(arrays), *size, *arrays[0].shape[2:]), value, dtype)
    for i, x in enumerate(arrays):
      whole[i, : x.shape[0], : x.shape[1]] = x
    return whole

  with atomic_path(workdir / 'pictures.npz') as temporary:
    np.savez_compressed(
      temporary,
      image=fill([sample.image for sample in samples], 0, np.uint8),
      label=fill([sample.label for sample in samples], VOID_16, np.uint16),
      **{name: fill([m[name] for m in maps], -1, np.int16) for name in maps[0]},
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
  columns = (found['iou_per_class'] for found in methods.values())
  rows = zip(names.names, names.splits, *columns, strict=True)
  return tables.comma_separated(['class', 'split', *methods], rows)
