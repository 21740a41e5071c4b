"""What a rehearsal of the full-size configurations draws, and from what it reports."""

import dataclasses
from typing import Literal

from ovs_jax.core.limits import Count, Name, Natural, Spot


@dataclasses.dataclass(frozen=True)
class Rehearsal:
  """Of the mode rehearse."""

  # files: of the benchmarks; weights: published checkpoints; report: what was changed
  part: Literal['files', 'weights', 'report'] = 'files'
  images: Count = 8  # photographs of COCO's train2017
  val_images: Count = 1  # of its val2017, and of the other benchmarks
  longest: Natural = 0  # side that photographs have at most; 0: as published
  scenes: Natural = 0  # how many photographs differ, others repeat them; 0: all
  datasets: tuple[Name, ...] = ()  # prepared of the files, in `dataset.data_dir`
  clip: Spot = ''  # where the CLIP is converted to
  backbone: Spot = ''  # and the backbone
  configs: tuple[Name, ...] = ()  # that are rehearsed: files in configs
