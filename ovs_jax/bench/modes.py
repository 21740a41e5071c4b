"""All modes of a trained model on a data set: how fast, and how well.

    python -m ovs_jax.bench --workload=modes --set=checkpoint=DIR

`filtered`, `one_pass` and bfloat16 are approximations, whose agreement and mIoU stand
beside those of `exact`.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.core.files import DATA_DIR
from ovs_jax.core.types import Int, UInt8
from ovs_jax.data import load_dataset, load_names
from ovs_jax.data.pipeline import examples
from ovs_jax.inference.encode import modes_of
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.models.stored import load
from ovs_jax.ops.confusion import count_pixels, segmentation_scores
from ovs_jax.settings.inputs import Dataset

Pictures = list[tuple[np.ndarray, np.ndarray]]  # and their labels
Label = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    checkpoint: an OVSeg model, trained or converted.
    name: of a data set with label maps, one of `data.DATASETS`.
    variant: of the data set; of `folder`, a directory.
    data_dir: where prepared data sets are.
    split: of the data set.
    images: how many of its first ones.
  """

  checkpoint: str = 'runs/quickstart/ovseg_mpt/model'
  name: str = 'scenes'
  variant: str = 'default'
  data_dir: str = DATA_DIR
  split: str = 'val'
  images: int = 100


def build(options: Options) -> Workload:
  """Every mode in float32, then `exact` in bfloat16."""
  pictures, names = labelled(options)
  facts: dict[str, Any] = {'classes': len(names)}
  clips = load(options.checkpoint, kinds=('ovseg',)).config.clips
  kinds = {mode: (mode, None) for mode in modes_of(*clips)}
  kinds |= {'bfloat16': ('exact', 'bfloat16')}
  first: list[np.ndarray] = []  # labels of `exact`
  variants = []
  for kind, (mode, dtype) in kinds.items():
    model = Segmenter.load(options.checkpoint, mode=mode, dtype=dtype)
    label = _labelling(kind, model, names, facts)
    run = compared(kind, label, pictures, len(names), facts, first)
    variants.append(Variant(kind, run))
  return Workload('pictures', len(pictures), variants, facts)


def labelled(options: Any) -> tuple[Pictures, tuple[str, ...]]:
  """Returns the first photos of a data set with label maps, and all names."""
  given = Dataset(options.name, options.variant, options.data_dir)
  _, builder = load_dataset(given)
  found = itertools.islice(examples(builder, options.split), options.images)
  pictures = [(example['image'], example['label']) for example in found]
  return pictures, load_names(given).names


def _labelling(
  kind: str, model: Segmenter, names: tuple[str, ...], facts: dict[str, Any]
) -> Label:
  skipped: list[float] = []

  def label(image: UInt8[np.ndarray, 'h w 3']) -> Int[np.ndarray, 'h w']:
    found = model.segment(model.encode(image), list(names))
    skipped.append(found.skipped)
    facts[f'crops skipped: {kind}'] = round(float(np.mean(skipped)), 3)
    return found.labels

  return label


def compared(
  kind: str,
  label: Label,
  pictures: Pictures,
  classes: int,
  facts: dict[str, Any],
  first: list[Int[np.ndarray, 'h w']],
) -> Callable[[], list[Int[np.ndarray, 'h w']]]:
  """Returns what labels all pictures; its first run writes into `facts`.

  Args:
    kind: what this way to label is called there.
    label: from an image to labels.
    pictures: images and true labels.
    classes: their number.
    facts: get mIoU, and the share of labels that are those of the first way.
    first: its labels; empty before it has run.
  """

  def run() -> list[Int[np.ndarray, 'h w']]:
    labels = [label(image) for image, _ in pictures]
    if f'mIoU: {kind}' not in facts:
      counts = sum(
        count_pixels(guess, truth, classes)
        for guess, (_, truth) in zip(labels, pictures, strict=True)
      )
      facts[f'mIoU: {kind}'] = round(segmentation_scores(counts)['miou'], 2)
      first.extend(labels if not first else [])
      same = [(a == b).mean() for a, b in zip(first, labels, strict=True)]
      facts[f'labels equal: {kind}'] = float(np.mean(same))
    return labels

  return run
