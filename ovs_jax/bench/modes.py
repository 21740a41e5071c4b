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
from ovs_jax.core.types import Int
from ovs_jax.data import load_dataset, load_names
from ovs_jax.data.pipeline import examples
from ovs_jax.inference.encode import modes_of
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.models.stored import load
from ovs_jax.ops.confusion import count_pixels, segmentation_scores


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
  names = load_names(options).names
  _, builder = load_dataset(options)
  found = itertools.islice(examples(builder, options.split), options.images)
  pictures = [(example['image'], example['label']) for example in found]
  facts: dict[str, Any] = {'classes': len(names)}
  clips = load(options.checkpoint, kinds=('ovseg',)).config.clips
  kinds = {mode: (mode, None) for mode in modes_of(*clips)}
  kinds |= {'bfloat16': ('exact', 'bfloat16')}
  first: list[np.ndarray] = []  # labels of `exact`
  variants = []
  for kind, (mode, dtype) in kinds.items():
    model = Segmenter.load(options.checkpoint, mode=mode, dtype=dtype)
    run = _run(kind, model, pictures, names, facts, first)
    variants.append(Variant(kind, run))
  return Workload('pictures', len(pictures), variants, facts)


def _run(
  kind: str,
  model: Segmenter,
  pictures: list[tuple[np.ndarray, np.ndarray]],
  names: tuple[str, ...],
  facts: dict[str, Any],
  first: list[Int[np.ndarray, 'h w']],
) -> Callable[[], list[Int[np.ndarray, 'h w']]]:
  """Returns what segments all pictures; its first run writes into `facts`."""

  def run() -> list[Int[np.ndarray, 'h w']]:
    found = [model.segment(model.encode(image), list(names)) for image, _ in pictures]
    labels = [one.labels for one in found]
    if f'mIoU: {kind}' not in facts:
      counts = sum(
        count_pixels(guess, truth, len(names))
        for guess, (_, truth) in zip(labels, pictures, strict=True)
      )
      facts[f'mIoU: {kind}'] = round(segmentation_scores(counts)['miou'], 2)
      first.extend(labels if not first else [])
      same = [(a == b).mean() for a, b in zip(first, labels, strict=True)]
      facts[f'labels equal: {kind}'] = float(np.mean(same))
      skipped = np.mean([one.skipped for one in found])
      facts[f'crops skipped: {kind}'] = round(float(skipped), 3)
    return labels

  return run
