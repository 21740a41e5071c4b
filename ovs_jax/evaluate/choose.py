"""Settings chosen on seen classes alone, a part of which plays unseen, several times.

A zero-shot protocol has no labels of unseen classes to choose anything by. So models
are trained as if a part of the seen classes were unseen too, and evaluated on training
pictures; what is best there, averaged over the parts, is taken for what counts.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  check_writable,
  place,
  read_mapping,
  write_json,
  write_text,
)
from ovs_jax.evaluate import tables
from ovs_jax.settings import Settings

_SEEN, _UNSEEN = 'miou_seen', 'miou_unseen'
_RULE = (
  'Rule: the setting with the highest harmonic mean of the mIoU of seen classes and of '
  'those held out, averaged over the folds. No label of an unseen class is looked at.'
)


@dataclasses.dataclass(frozen=True)
class _Tried:
  """A setting and a method.

  Attributes:
    setting: its name.
    method: such as 'ensemble_0.20'.
    folds: mIoU of seen and of held-out classes, of each fold.
    final: of the run on what counts: mIoU of all, seen and unseen classes.
  """

  setting: str
  method: str
  folds: tuple[tuple[float, ...], ...]
  final: tuple[float, ...]

  @property
  def score(self) -> float:
    """What the rule compares; a fold that shows no class of a kind says nothing."""
    scores = [harmonic(seen, held) for seen, held in self.folds]
    told = [score for score in scores if not math.isnan(score)]
    return float(np.mean(told)) if told else 0.0


def harmonic(a: float, b: float) -> float:
  """Returns the harmonic mean of two numbers that are not negative."""
  return 2 * a * b / (a + b) if a + b else 0.0


def choose(config: Settings, workdir: Place) -> dict[str, Any]:
  """Writes choice.md and choice.json from the evaluations of `config.choose.settings`.

  Returns:
    `chosen` and `usual`, with `setting`, `method`, `score` (of the rule) and, on what
    counts, `miou`, `miou_seen` and `miou_unseen` in percent; None where none was named.

  Raises:
    FileNotFoundError: an evaluation has not been run.
    UserError: nothing is to be chosen, or an evaluation lacks what is compared.
    OSError: `workdir` cannot be written.
  """
  workdir = check_writable(workdir, megabytes=1)
  tried = [x for given in config.choose.settings for x in _tried(*given)]
  if not tried:
    raise UserError(
      'config.choose.settings is empty, or its runs have no ensemble; give a name, '
      'runs of mode evaluate with config.dataset.fold, and the run that counts'
    )
  if all(math.isnan(sum(pair)) for x in tried for pair in x.folds):
    raise UserError(
      'no run of config.choose.settings has mIoU of both seen and held-out classes: '
      'these are runs of mode evaluate with config.dataset.fold, on photos that show '
      'some of each'
    )
  best = max(tried, key=lambda x: x.score)  # the first of equal ones
  usual = None
  if any(config.choose.usual):
    same = [x for x in tried if (x.setting, x.method) == config.choose.usual]
    if not same:
      known = ', '.join(f'{x.setting} / {x.method}' for x in tried)
      raise UserError(
        f'config.choose.usual={config.choose.usual} was not tried; there are {known}'
      )
    (usual,) = same
  found = {'chosen': _row(best), 'usual': None if usual is None else _row(usual)}
  write_json(workdir / 'choice.json', {**found, 'tried': [_row(x) for x in tried]})
  text = markdown(tried, best, usual)
  write_text(workdir / 'choice.md', text)
  print(text, flush=True)
  return found


def _tried(setting: str, runs: tuple[str, ...], final: str) -> list[_Tried]:
  """Every ensemble that all evaluations of a setting have."""
  folds, counts = [_methods(run) for run in runs], _methods(final)
  if not folds:
    raise UserError(f'config.choose.settings: {setting!r} names no runs of folds')
  return [
    _Tried(
      setting,
      method,
      tuple(_numbers(fold[method], _SEEN, _UNSEEN) for fold in folds),
      _numbers(counts[method], 'miou', _SEEN, _UNSEEN),
    )
    for method in folds[0]
    if method.startswith('ensemble_') and all(method in x for x in (*folds, counts))
  ]


def _numbers(scores: dict[str, Any], *keys: str) -> tuple[float, ...]:
  """Scores, NaN where there is none: no such class was there."""
  return tuple(math.nan if (x := scores[key]) is None else x for key in keys)


def _methods(run: str) -> dict[str, dict[str, Any]]:
  path = place(run) / 'scores.json'
  if not path.is_file():
    raise FileNotFoundError(f'{path} not found: {run} is no run of mode evaluate')
  methods = read_mapping(path, methods=dict)['methods']
  for method, scores in methods.items():
    if method.startswith('ensemble_') and not {_SEEN, _UNSEEN} <= set(scores):
      raise UserError(
        f'{path} does not tell seen classes from unseen ones; evaluate with '
        'config.dataset.fold, on a list that says which are seen'
      )
  return methods


def _row(tried: _Tried) -> dict[str, Any]:
  every, seen, unseen = tried.final
  return {
    'setting': tried.setting,
    'method': tried.method,
    'score': tried.score,
    'miou': every,
    _SEEN: seen,
    _UNSEEN: unseen,
  }


def markdown(tried: list[_Tried], best: _Tried, usual: _Tried | None) -> str:
  """Returns the report."""
  folds = range(len(best.folds))
  titles = ['setting', 'method', *(f'fold {i}: seen / held out' for i in folds)]
  titles += ['rule', 'what counts: all', 'seen', 'unseen', '']
  rows = []
  for x in tried:
    marks = ['chosen'] * (x is best) + ['usual'] * (x is usual)
    shown = (' / '.join(map(tables.number, pair)) for pair in x.folds)
    rows.append(
      [x.setting, x.method, *shown, tables.number(x.score)]
      + [*map(tables.number, x.final), ', '.join(marks)]
    )
  lines = ['# Settings chosen on seen classes', '', _RULE, '']
  lines += tables.markdown(titles, rows)
  return '\n'.join(lines).strip() + '\n'
