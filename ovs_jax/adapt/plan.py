"""What is there, and what can be made of it: the settings of an adaptation."""

import dataclasses
import importlib
import math
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ovs_jax import arguments
from ovs_jax.core.errors import UserError
from ovs_jax.core.types import void_of
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.data.stored import noted
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.models.stored import Checkpoint
from ovs_jax.settings import Dataset
from ovs_jax.text import vocabulary

FEW = 8  # photos with masks from which on a proposer learns more than it forgets
_SHARE = 0.2  # of the photos to train with, that are kept to choose by
_MOST = 200  # of these
_LOOKED_AT = 500  # photos whose classes are counted
_TARGETS = (4, 30)  # least and most classes of a photo that a proposer is shown
_SMALL_SIDE = 192  # of photos, where a checkpoint was made for small drawn scenes


@dataclasses.dataclass(frozen=True)
class Photos:
  """What a data set holds.

  Attributes:
    data: as it was given.
    splits: number of photos by split.
    names: of the classes; none without masks.
    captions: whether there are some.
    targets: most classes of a photo to train with.
    choose: number of photos of `train` that are kept to choose by.
    labelled: whether these show two classes or more.
  """

  data: str
  splits: dict[str, int]
  names: tuple[str, ...]
  captions: bool
  targets: int
  choose: int
  labelled: bool


@dataclasses.dataclass(frozen=True)
class Way:
  """How models of a kind are adapted.

  Attributes:
    file: in `configs`, whose `pipeline` does it.
    shares: of the time that is left for training, by what trains.
  """

  file: str
  shares: Mapping[str, float]


# By the kind of the checkpoint.
WAYS = {
  'ovseg': Way('photos_adapt', {'masks': 0.7, 'prompts': 0.3}),
  'clipseg': Way('photos_clipseg', {'phrases': 1.0}),
}


def configuration(file: str, name: str, **given: Any) -> ml_collections.ConfigDict:
  """Returns the pipeline of a file in `configs` with these settings."""
  arguments.with_packaged([])  # makes `configs` importable
  return importlib.import_module(f'configs.{file}').pipeline(name, **given)


def look(data: str, data_dir: str) -> Photos:
  """Looks at a data set, which is prepared if it was not.

  Raises:
    FileNotFoundError, ValueError: there is none, or nothing to train with.
  """
  _, builder = load_dataset(Dataset('folder', data, data_dir))
  splits = {k: int(x.num_examples) for k, x in builder.info.splits.items()}
  if 'train' not in splits:
    raise UserError(
      f'{data} has the splits {", ".join(splits)} and nothing to train with; put '
      'photos into images/train, or five or more into images/'
    )
  names = tuple(noted(builder, 'names', list))
  captions = 'captions' in builder.info.features
  if not names:
    return Photos(data, splits, names, captions, 0, 0, False)
  count = splits['train']
  choose = min(max(2, round(_SHARE * count)), _MOST) if count >= 5 else 0
  held = _classes(builder, f'train[:{choose}]') if choose else []
  end = min(count, choose + _LOOKED_AT)
  others = _classes(builder, f'train[{choose}:{end}]')
  if not any(others):
    raise UserError(
      f'the masks of {data} have no pixel of a class in its split train; see what '
      'prepare says of them'
    )
  targets = min(max(*map(len, others), _TARGETS[0]), _TARGETS[1])
  labelled = len(set().union(*held)) >= 2
  return Photos(data, splits, names, captions, targets, choose, labelled)


def _classes(builder: Any, split: str) -> list[set[int]]:
  """The classes of every photo."""
  found = []
  for example in pipeline.examples(builder, split):
    label = example['label']
    found.append(set(np.unique(label).tolist()) - {void_of(label.dtype)})
  return found


def settings(
  photos: Photos, checkpoint: Checkpoint, *, side: int = 0
) -> dict[str, Any]:
  """Returns what `pipeline` of the checkpoint's way takes, all but numbers of steps.

  Args:
    photos: what there is.
    checkpoint: an OVSeg or a CLIPSeg.
    side: of photos for an OVSeg's networks; 0 leaves that to the checkpoint.

  Raises:
    UserError: the checkpoint cannot be adapted, or has a side of its own.
  """
  stored, config = checkpoint.stored, checkpoint.config
  if checkpoint.kind == 'clipseg':
    if side:
      raise UserError(f'a CLIPSeg has a size of its own; leave --side={side} out')
    return _of_phrases(photos, checkpoint)
  assert isinstance(config, OvSegConfig)
  config.check_one_clip(checkpoint.directory)
  own = stored['test']
  shortest = side or max(int(own['shortest']), _SMALL_SIDE)
  longest = max(int(own['longest']), 4 * shortest) if side else int(own['longest'])
  return {
    **_divided(photos, checkpoint),
    'proposer': _plain(stored['proposer']),
    'clip': _plain(stored['clip']),
    'region': _plain(stored['region']),
    'templates': stored['templates'],
    'shortest': shortest,
    'longest': max(longest, shortest),
    'own': (int(own['shortest']), int(own['longest'])),
    'weight': float(stored['weight']),
    'classifier': stored['classifier'],
    'labelled': photos.labelled,
    'targets': photos.targets or _TARGETS[0],
    'mined': not photos.names,
  }


def _of_phrases(photos: Photos, checkpoint: Checkpoint) -> dict[str, Any]:
  sizes = dict(checkpoint.stored['clipseg'])
  return {
    **_divided(photos, checkpoint),
    'clip': _plain(sizes.pop('clip')),
    'clipseg': _plain(sizes),
  }


def _divided(photos: Photos, checkpoint: Checkpoint) -> dict[str, Any]:
  """Which photos train, choose and are reported on."""
  choose = photos.choose
  return {
    'data': photos.data,
    'checkpoint': str(checkpoint.directory),
    'training': training_list(checkpoint.stored),
    'val': 'val' if photos.names and photos.splits.get('val') else '',
    'train': f'train[{choose}:]' if choose else 'train',
    'choose': f'train[:{choose}]' if choose else '',
    'batch': min(8, photos.splits['train'] - choose),
  }


def training_list(stored: Mapping[str, Any]) -> str:
  """Returns the class list of the package that a checkpoint was trained with.

  Where it does not say, or was trained with others, the usual one, of which reports
  then say that it was not compared.
  """
  trained = (stored.get('training_names') or {}).get('name')
  return trained if trained in vocabulary.known() else 'coco_stuff_171'


def _plain(value: Any) -> Any:
  """Tuples as JSON has them."""
  if isinstance(value, dict):
    return {k: _plain(x) for k, x in value.items()}
  return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def parts(photos: Photos, kind: str) -> tuple[str, ...]:
  """Returns which parts of a model of this kind are worth training, and says why.

  Raises:
    UserError: nothing is.
  """
  count = photos.splits['train'] - photos.choose
  if kind == 'clipseg' and not photos.names:
    raise UserError(
      f'{photos.data} has no masks, from which a CLIPSeg learns; give masks, or an '
      'OVSeg as --checkpoint=, which learns from captions, too'
    )
  if kind == 'clipseg':
    say(f"masks of {count} photos: CLIPSeg's decoder trains on their names")
    return ('phrases',)
  if not photos.names and not photos.captions:
    raise UserError(f'{photos.data} has neither masks nor captions to learn from')
  if not photos.names:
    say('captions, no masks: nouns and proposals are mined, then mask prompts train')
    return ('prompts',)
  if photos.splits['train'] < FEW:
    say(f'masks of {count} photos, fewer than {FEW}: mask prompts train, no proposer')
    return ('prompts',)
  say(f'masks of {count} photos: the proposer and mask prompts train')
  return ('masks', 'prompts')


def steps(seconds: float, each: float, *, least: int = 20, most: int = 20_000) -> int:
  """Returns how many steps fit.

  Args:
    seconds: that there are.
    each: of a step.
    least: steps, whatever there is.
    most: likewise.
  """
  return int(min(max(math.floor(seconds / each), least), most))


def say(text: str) -> None:
  """Tells the user what was decided."""
  print(f'adapt: {text}', file=sys.stderr, flush=True)
