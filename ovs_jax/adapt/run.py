"""An adaptation: a pipeline whose settings follow from what is there, and time.

What was decided is in `adapt.json`, so that the same command goes on where it stopped,
and in `adapt.py`, a configuration that does the same again.
"""

import dataclasses
import json
import pprint
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from ovs_jax import main
from ovs_jax.adapt import plan, report
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  place,
  read_mapping,
  remove,
  write_json,
  write_text,
)
from ovs_jax.evaluate.tables import COMPARED
from ovs_jax.models.stored import kind_of, load
from ovs_jax.settings import Settings
from ovs_jax.train.pipeline import run_pipeline

NOTE, CONFIG = 'adapt.json', 'adapt.py'
_FIRST = ('before', 'chosen_before', 'pairs', 'labelled')  # need no number of steps
_TRIED = ('chosen_before', 'chosen')  # what settings are chosen from
_PROBED = 8  # steps that tell how long one takes
_EVERY = 4  # of these, between evaluations
_EVALUATIONS = 11  # of a training
_SPARE = 20.0  # seconds to load and to write


@dataclasses.dataclass(frozen=True)
class Asked:
  """What the user asks for.

  Attributes:
    data: a folder of photographs, or a file of annotations.
    checkpoint: of an OVSeg or a CLIPSeg.
    minutes: that it may take, about.
    side: of photos for the networks; 0 leaves it to the checkpoint.
    seed: of what is drawn.
    data_dir: where data sets are prepared.
  """

  data: str
  checkpoint: str
  minutes: float
  side: int
  seed: int
  data_dir: str


class Adaptation:
  """The stages of one directory, begun or not."""

  def __init__(self, asked: Asked, way: plan.Way, workdir: Place) -> None:
    """Reads what was decided before.

    Raises:
      ValueError: the directory belongs to something else.
    """
    self.asked, self.way, self.workdir = asked, way, workdir
    self._note = workdir / NOTE
    stored = None
    if self._note.exists():
      stored = read_mapping(self._note, asked=dict, photos=dict, chosen=None)
    own = dataclasses.asdict(asked)
    if stored is not None and stored['asked'] != own:
      other = [k for k in own if stored['asked'].get(k) != own[k]]
      raise UserError(
        f'{workdir} was begun with another {", ".join(other)}; give another --output=, '
        'or delete the directory'
      )
    self.chosen: dict[str, Any] = stored['photos'] if stored else {}
    self.done: bool = bool(stored and stored['chosen'])

  def decide(self, *, finally_: bool = False, **fields: Any) -> None:
    """Keeps what the way's `pipeline` takes."""
    self.chosen |= fields
    self.done = finally_
    found = {'asked': dataclasses.asdict(self.asked), 'photos': self.chosen}
    write_json(self._note, {**found, 'chosen': self.done})
    lines = [
      '"""What `ovs-jax adapt` did; again, in another directory:',
      '',
      f'ovs-jax train --config={self.workdir / CONFIG} --workdir=ELSEWHERE',
      '"""',
      '',
      f'from configs import {self.way.file}',
      '',
      f'PHOTOS = {pprint.pformat(self._settings(), sort_dicts=False)}',
      '',
      '',
      "def get_config(arg=''):",
      f'  return {self.way.file}.pipeline({self.workdir.name!r}, arg=arg, **PHOTOS)',
    ]
    write_text(self.workdir / CONFIG, '\n'.join(lines) + '\n')

  def _settings(self) -> dict[str, Any]:
    where = {'seed': self.asked.seed, 'data_dir': self.asked.data_dir}
    return {**_tuples(self.chosen), **where}

  def _configuration(self, **steps: int) -> ml_collections.ConfigDict:
    given = {**self._settings(), **steps}
    return plan.configuration(self.way.file, self.workdir.name, **given)

  def run(self, order: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs stages in their order, those that have not been; None: all."""
    config = self._configuration()
    wanted = config.order if order is None else [k for k in config.order if k in order]
    with config.unlocked():
      config.order = tuple(wanted)
    return run_pipeline(Settings.of(config), self.workdir, main.run)

  def probe(self, parts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns how many seconds each part's steps and evaluations take, and a start."""
    config = self._configuration(**dict.fromkeys(parts, _PROBED))
    with config.unlocked():
      names = []
      for part in parts:
        stage = config.stages[part]
        names.append(f'probe_{part}')
        stage.train.update(log_every=1, save_every=1000, patience=0)
        stage.train.choose_every = _EVERY
        if stage.adapt.evaluate_every:
          stage.adapt.evaluate_every = _EVERY
        config.stages[names[-1]] = stage
      config.order = tuple(names)
    for name in names:
      remove(self.workdir / name)
    results = run_pipeline(Settings.of(config), self.workdir, main.run)
    found = {}
    for part, name in zip(parts, names, strict=True):
      batch = config.stages[part].train.batch_size
      found[part] = _times(self.workdir / name, batch, results[name]['seconds'])
      remove(self.workdir / name)
    return found


def _tuples(value: Any) -> Any:
  """Lists of JSON as the tuples that they were."""
  if isinstance(value, Mapping):
    return {k: _tuples(x) for k, x in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _times(directory: Place, batch: int, whole: float) -> dict[str, float]:
  """Reads how long the steps of a short training took."""
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  ends = [batch * row['step'] / max(row['images_per_second'], 0.1) for row in rows]
  taken = [b - a for a, b in zip(ends[:-1], ends[1:], strict=True)]
  # Steps with an evaluation have it in their time.
  plain = [x for i, x in enumerate(taken, start=2) if i % _EVERY]
  each = max(statistics.median(plain), 1e-4)
  evaluation = max(taken[_EVERY - 2] - each, 0.0)
  start = max(whole - ends[-1] - evaluation, 0.0)
  return {'each': each, 'evaluation': evaluation, 'start': start}


def adapt(asked: Asked, workdir: Place) -> dict[str, Any]:
  """Makes the best model of photographs that it can, and reports on it.

  Returns:
    The rows of the report (`evaluate.before_after.compare`), and `model`.

  Raises:
    FileNotFoundError, ValueError: what was given cannot be used.
    Stopped: SIGTERM came; the same call goes on.
  """
  began = time.time()
  kind = kind_of(asked.checkpoint, kinds=tuple(plan.WAYS))
  adaptation = Adaptation(asked, plan.WAYS[kind], workdir)
  photos = plan.look(asked.data, asked.data_dir)
  parts = plan.parts(photos, kind)
  if 'adapted' not in adaptation.chosen:
    _decide_steps(adaptation, photos, parts, began)
  if not adaptation.done:
    results = adaptation.run([*_FIRST, *parts, 'candidate', 'chosen'])
    fields = choose(results) if photos.choose else {}
    adaptation.decide(finally_=True, **fields)
  results = adaptation.run()
  model = _model(adaptation)
  rows = report.write(adaptation.workdir, photos, adaptation.chosen, results, model)
  plan.say(f'took {(time.time() - began) / 60:.1f} minutes')
  return {'rows': rows, 'model': str(model)}


def _model(adaptation: Adaptation) -> Place:
  """Where the result is."""
  workdir, chosen = adaptation.workdir, adaptation.chosen
  if adaptation.way is plan.WAYS['ovseg']:
    return workdir / 'ovseg' / 'model'
  if not chosen['adapted']:
    return place(adaptation.asked.checkpoint)
  return workdir / 'phrases' / ('best' if chosen['choose'] else '')


def _decide_steps(
  adaptation: Adaptation, photos: plan.Photos, parts: Sequence[str], began: float
) -> None:
  """Evaluates what is there, and divides the time that is left."""
  asked = adaptation.asked
  shares = adaptation.way.shares
  fields = plan.settings(photos, load(asked.checkpoint), side=asked.side)
  adaptation.decide(**fields, **{k: int(k in parts) for k in shares})
  adaptation.run(_FIRST)
  spent = {
    k: read_mapping(adaptation.workdir / k / 'done.json', seconds=(int, float))
    for k in _done(adaptation)
  }
  times = adaptation.probe(parts)
  again = sum(spent[k]['seconds'] for k in ('before', 'chosen_before') if k in spent)
  fixed = sum(x['start'] + _EVALUATIONS * x['evaluation'] for x in times.values())
  left = 60 * asked.minutes - (time.time() - began) - again - fixed - _SPARE
  whole = sum(shares[part] for part in parts)
  found = {
    part: plan.steps(left * shares[part] / whole, times[part]['each']) for part in parts
  }
  for part, count in found.items():
    plan.say(f'{part}: {count} steps of {times[part]["each"]:.2f} s')
  adaptation.decide(adapted=True, **found)


def _done(adaptation: Adaptation) -> list[str]:
  return [k for k in _FIRST if (adaptation.workdir / k / 'done.json').exists()]


def choose(results: Mapping[str, Any]) -> dict[str, Any]:
  """Returns whose parts and which weights label the photos of `choose` best.

  Args:
    results: of the stages `chosen_before` and `chosen`.

  Returns:
    `adapted` and, of an OVSeg, `classifier` and an ensemble's `weight`.
  """
  best, fields = -1.0, {}
  for stage in _TRIED:  # what is as good as the checkpoint is not taken
    (summary,) = results[stage]['result'].values()
    for method, scores in summary['methods'].items():
      classifier, _, weight = method.partition('_')
      of_ovseg = classifier in ('proposer', 'clip', 'ensemble')
      wanted = of_ovseg or method == summary['headline']
      if not wanted or scores[COMPARED] <= best:
        continue
      best, fields = scores[COMPARED], {'adapted': stage == 'chosen'}
      fields |= {'classifier': classifier} if of_ovseg else {}
      fields |= {'weight': float(weight)} if weight else {}
  told = ['the trained parts' if fields['adapted'] else "the checkpoint's own parts"]
  told += [fields['classifier']] if 'classifier' in fields else []
  told += [f'weight {fields["weight"]}'] if 'weight' in fields else []
  plan.say(f'chosen by photos of train: {", ".join(told)} (mIoU {best:.1f} there)')
  return fields
