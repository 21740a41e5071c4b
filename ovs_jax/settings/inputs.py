"""Where pictures and names come from, and what they are computed on."""

import dataclasses
from typing import Annotated, Literal

from ovs_jax.core.files import DATA_DIR
from ovs_jax.core.limits import (
  Count,
  Filled,
  Fold,
  Name,
  OneOf,
  Pattern,
  Positive,
  Share,
  Spot,
)
from ovs_jax.ops.regions import FILLS
from ovs_jax.text.templates import TEMPLATES

# Those of `ovs_jax.data`, which is above.
DatasetName = Literal[
  'scenes',
  'folder',
  'coco_stuff_171',
  'coco_stuff_156_15',
  'coco_80',
  'coco_captions_2017',
  'ade20k_150',
  'ade20k_847',
  'pascal_context_59',
  'pascal_context_459',
  'voc_20',
  'voc_20b',
  'voc_21',
]
Templates = Annotated[str, OneOf(TEMPLATES)]
ShardingRule = tuple[Pattern, tuple[str | None, ...]]


@dataclasses.dataclass(frozen=True)
class Mesh:
  """The devices."""

  data: Literal[-1] | Count = -1  # devices along the batch; -1: all
  model: Count = 1  # devices along heads and hidden units
  # whether large parameters are split along the batch's devices, too
  fsdp: bool = False
  # (path pattern, axes of its last dimensions), before the package's own
  rules: tuple[ShardingRule, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The data set."""

  name: DatasetName = 'scenes'  # see ovs_jax.data.DATASETS
  variant: Name = 'default'  # its TFDS configuration; of 'folder', the directory
  data_dir: Annotated[Spot, Filled()] = DATA_DIR  # where TFDS keeps it
  # 'I/N': takes every Nth of the seen classes, from the Ith on, for unseen
  fold: Annotated[str, Fold()] = ''


@dataclasses.dataclass(frozen=True)
class Region:
  """What CLIP sees of a mask."""

  threshold: Share = 0.4  # a pixel is foreground above this probability
  fill: Annotated[str, OneOf(FILLS)] = 'mean'  # background of crops; none: the image
  expand: Positive = 1.0  # factor on the box
  matting: bool = False  # blend with the soft mask


@dataclasses.dataclass(frozen=True)
class Text:
  """The sentences around names; see ovs_jax.text.templates."""

  templates: Templates = 'vild'  # prompts of class names
  train_template: Templates = 'single'  # the sentence around a mined noun
