"""All settings of a job, checked once when it starts."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import ml_collections

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import Given, Name, Range, Spot, hints, places, plain, read
from ovs_jax.core.tree import flatten
from ovs_jax.models.clip import PRESETS as CLIPS
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clipseg import ClipSegParts
from ovs_jax.models.clipseg_decoder import tiny as tiny_decoder
from ovs_jax.models.coseg import CoSegParts
from ovs_jax.models.coseg import tiny as tiny_coseg
from ovs_jax.models.maskformer import PRESETS as PROPOSERS
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.settings.evaluation import (
  Choose,
  Eval,
  Report,
  Suite,
  Systems,
  Table,
  Test,
)
from ovs_jax.settings.inputs import Dataset, Mesh, Region, Text
from ovs_jax.settings.mining import Mining
from ovs_jax.settings.rehearsal import Rehearsal
from ovs_jax.settings.training import Adapt, Init, Optimizer, Phrases, Slots, Train

# Those of `ovs_jax.main` and `ovs_jax.train.recipes`, which are above.
Mode = Literal[
  'train',
  'evaluate',
  'benchmark',
  'evaluate_systems',
  'mine',
  'assemble',
  'prepare',
  'report',
  'replicate',
  'table',
  'choose',
  'rehearse',
  'pipeline',
]
RecipeName = Literal['clip_pretrain', 'clip_regions', 'clipseg', 'coseg', 'proposer']
_STAGE = re.compile(r'(?<=^config\.)stages\.[^.]+\.')
# What may change between starts: how a run is done and watched, not what comes out.
_FREE = re.compile(
  r'(^|/)(mesh/(data|model|fsdp)|(train|mining|eval)/(skip_not_finite|save_every|keep'
  r'|log_every|writers|profile|disk_megabytes))$'
)
_PIPELINES = ('order', 'stages')  # keys that a single job does not have


@dataclasses.dataclass(frozen=True)
class Settings:
  """The whole configuration of a job, or of a pipeline of them."""

  name: Name  # of the run; results go to runs/NAME
  mode: Mode  # a job of ovs_jax.main
  # what `train` trains; see ovs_jax.train.recipes
  recipe: Literal[''] | RecipeName = ''
  place: Spot = ''  # of a pipeline's stage: its directory, in place of RUN/STAGE
  # of parameters, shuffling and augmentation
  seed: Annotated[int, Range(least=0, below=2**32)] = 0
  checkpoint: Given = ''  # to evaluate; another name of eval.checkpoint
  optimize_programs: bool = True  # False compiles sooner and runs slower
  mesh: Mesh = Mesh()
  dataset: Dataset = Dataset()
  clip: ClipConfig = CLIPS['tiny']
  proposer: MaskFormerConfig = PROPOSERS['tiny']
  coseg: CoSegParts = tiny_coseg('prefix').parts()
  slots: Slots = Slots()
  clipseg: ClipSegParts = ClipSegParts(tiny_decoder('rd64_refined'), 128, 32)
  phrases: Phrases = Phrases()
  region: Region = Region()
  text: Text = Text()
  init: Init = Init()
  # what must be there first: (key, what it is, command to make it)
  needs: tuple[tuple[Name, str, str], ...] = ()
  train: Train = Train()
  adapt: Adapt = Adapt()
  optimizer: Optimizer = Optimizer()
  mining: Mining = Mining()
  test: Test = Test()
  eval: Eval = Eval()
  suite: Suite = Suite()
  systems: Systems = Systems()
  report: Report = Report()
  table: Table = Table()
  choose: Choose = Choose()
  rehearsal: Rehearsal = Rehearsal()
  order: tuple[Name, ...] = ()  # of a pipeline's stages
  # of a pipeline: the settings of each, by name
  stages: Mapping[str, 'Settings'] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    strange = [name for name in self.order if name not in self.stages]
    if strange:
      raise UserError(f'order names stages that are not there: {", ".join(strange)}')

  @classmethod
  def of(cls, config: ml_collections.ConfigDict | Mapping[str, Any]) -> 'Settings':
    """Reads a configuration, and its stages', and checks every value.

    Raises:
      UserError: something is wrong; names all of it, a line each.
    """
    settings, problems = read(cls, config, 'config')
    if not problems:
      return settings
    # What stages have of their pipeline is wrong once.
    whole = {line for line in problems if not _STAGE.search(line)}
    problems = [x for x in problems if x in whole or _STAGE.sub('', x) not in whole]
    if len(problems) == 1:
      raise UserError(problems[0])
    raise UserError(f'{len(problems)} settings are wrong:\n  ' + '\n  '.join(problems))

  def to_dict(self) -> dict[str, Any]:
    """Returns nested dicts; a single job has no `order` and `stages`."""
    keys = [f.name for f in dataclasses.fields(self)]
    found = {key: getattr(self, key) for key in keys if key not in _PIPELINES}
    found = {key: plain(value) for key, value in found.items()}
    if self.stages:
      stages = {name: stage.to_dict() for name, stage in self.stages.items()}
      found |= {'order': self.order, 'stages': stages}
    return found

  def to_json(self) -> dict[str, Any]:
    """Returns `to_dict` as JSON gives it back."""
    return json.loads(json.dumps(self.to_dict(), default=str))

  def to_config(self) -> ml_collections.ConfigDict:
    """Returns a configuration that files and the command line change."""
    return _to_config(self)


def bound(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings, by path, on which what a job makes depends.

  Of paths they have whether there is one: what is there counts, not where it is.

  Args:
    config: as `Settings.to_json` or `config.json` has it.
  """
  placed = places(Settings, config, lambda key, kind, path: '(a path)' if path else '')
  return {k: _lists(v) for k, v in flatten(placed).items() if not _FREE.search(k)}


def _lists(value: Any) -> Any:
  """Tuples as JSON gives them back."""
  return [_lists(x) for x in value] if isinstance(value, (tuple, list)) else value


def _to_config(value: Any) -> Any:
  """Sections as configurations; a number that may be None knows what it would be."""
  if isinstance(value, tuple):
    return tuple(_to_config(x) for x in value)
  if isinstance(value, Mapping):
    return ml_collections.ConfigDict({k: _to_config(x) for k, x in value.items()})
  if not dataclasses.is_dataclass(value):
    return value
  config = ml_collections.ConfigDict()
  single = isinstance(value, Settings) and not value.stages
  for name, kind in hints(type(value)).items():
    part = getattr(value, name)
    if part is None and 'float' in str(kind):
      part = ml_collections.config_dict.placeholder(float)
    if not (single and name in _PIPELINES):
      config[name] = _to_config(part)
  return config
