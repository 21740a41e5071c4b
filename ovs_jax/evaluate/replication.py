"""The report of a replication: a table, a verdict and a figure for each claim."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.files import (
  Place,
  atomic_path,
  check_writable,
  read_mapping,
  strict_json,
  write_text,
)
from ovs_jax.core.types import Int
from ovs_jax.data import load_names
from ovs_jax.evaluate import resampling, tables
from ovs_jax.evaluate.claims import CLAIMS, Claim
from ovs_jax.evaluate.report import draw, stage_seconds
from ovs_jax.evaluate.resampling import (
  Estimate,
  Gain,
  Quantity,
  Resampler,
  Verdict,
)
from ovs_jax.evaluate.scores import groups_of
from ovs_jax.settings import Settings

_PICTURES = 'evaluate_mpt_ft'  # the stage whose label maps are shown
_METHOD = 'ensemble_0.20'


def replicate(config: Settings, workdir: Place) -> dict[str, Any]:
  """Writes report.md, report.json, figures and pictures into the run's directory.

  Reads the counts of `<run>/<seed>/<stage>/counts.npz` for each of
  `config.report.seeds`. Claims whose stages did not run are listed as such.

  Returns:
    For each claim its relations and how they came out.

  Raises:
    FileNotFoundError: no stage of any claim has run.
    OSError: the directory cannot be written.
  """
  run = check_writable(config.report.run or workdir, megabytes=20)
  names = load_names(config.dataset)
  groups = groups_of(names)
  places = [run / seed for seed in config.report.seeds]
  counts = [_counts(place) for place in places]
  if not any(counts):
    raise FileNotFoundError(
      f'no evaluation found below {places[0]}; run configs/replicate.py, whose last '
      'stage this is'
    )
  resampler = Resampler(counts, groups, replicates=config.report.resamples)
  found = [judge(claim, resampler) for claim in CLAIMS]
  gflops = _gflops(places[0])
  for claim, result in zip(CLAIMS, found, strict=True):
    if result['rows']:
      with atomic_path(run / f'claim_{claim.key}.png') as temporary:
        _figure(claim, result).savefig(temporary, dpi=100)
  pictures = _pictures(places[0], run, names)
  seconds = {place.name: sum(stage_seconds(place).values()) for place in places}
  summary = {
    'seeds': len(places),
    'dataset': f'{config.dataset.name}/{config.dataset.variant}:val',
    'vocabulary_sha256': names.sha256,
    'claims': found,
    'seconds': seconds,
  }
  write_text(run / 'report.json', strict_json(summary, indent=2) + '\n')
  text = markdown(summary, gflops, pictures)
  write_text(run / 'report.md', text)
  print(overview(found))
  return {claim['key']: claim['relations'] for claim in found}


def judge(claim: Claim, resampler: Resampler) -> dict[str, Any]:
  """Returns a claim's table and the verdicts on its relations, for JSON.

  Rows and relations whose counts are missing are left out.
  """
  rows = [
    {'title': row.title, 'cells': [_estimate(resampler, cell) for cell in row.cells]}
    for row in claim.rows
    if all(resampler.known(cell) for cell in row.cells)
  ]
  run = [
    relation
    for relation in claim.relations
    if resampler.known(relation.lower) and resampler.known(relation.higher)
  ]
  differences = [resampler.draws(r.higher) - resampler.draws(r.lower) for r in run]
  told = dict(zip(run, resampling.verdicts(differences), strict=True))
  relations = [
    _told(relation.title, told.get(relation)) for relation in claim.relations
  ]
  return {'key': claim.key, 'title': claim.title, 'rows': rows, 'relations': relations}


def _told(title: str, verdict: Verdict | None) -> dict[str, Any]:
  if verdict is None:
    return {'title': title, 'verdict': resampling.NOT_RUN}
  return {
    'title': title,
    'verdict': verdict.word,
    'difference': vars(verdict.difference),
    'p': verdict.p,
    'seeds_needed': verdict.seeds_needed,
  }


def _estimate(resampler: Resampler, cell: Quantity | Gain) -> dict[str, Any]:
  return vars(Estimate.of(resampler.draws(cell)))


def _counts(place: Place) -> dict[str, dict[str, Int[np.ndarray, 'n 3 k']]]:
  """The counts of every stage of a seed, by stage and method."""
  found = {}
  for path in sorted(place.glob('*/counts.npz')):
    with path.open('rb') as file, np.load(file, allow_pickle=False) as stored:
      found[path.parent.name] = {name: stored[name] for name in stored.files}
  return found


def _gflops(place: Place) -> dict[str, str]:
  """What an image costs in every stage that says so, for a table."""
  costs = {}
  for path in place.glob('*/scores.json'):
    gflops = read_mapping(path).get('gflops')
    if gflops:
      parts = ' + '.join(f'{gflops[name]:.2f}' for name in ('proposer', 'clip'))
      costs[path.parent.name] = parts
  return costs


def overview(claims: Sequence[Mapping[str, Any]]) -> str:
  """Returns one line for each relation: the claim, its verdict and the difference."""
  rows = []
  for claim in claims:
    for relation in claim['relations']:
      cells = [claim['key'], relation['title'], relation['verdict']]
      if gain := relation.get('difference'):
        cells += [f'{gain["value"]:+.1f} {_interval(gain)}', f'{relation["p"]:.3f}']
        cells += [_needed(relation)]
      rows.append(cells + [''] * (6 - len(cells)))
  titles = ('claim', '', 'verdict', 'difference [95 %]', 'p', 'seeds needed')
  return '\n'.join(tables.markdown(titles, rows))


def _needed(relation: Mapping[str, Any]) -> str:
  """The number of seeds that would decide; nothing where it is decided."""
  if relation['verdict'] != resampling.UNDECIDED:
    return ''
  needed = relation['seeds_needed']
  return {None: 'not known', 0: 'more pictures'}.get(needed, str(needed))


def markdown(
  summary: Mapping[str, Any], gflops: Mapping[str, str], pictures: int
) -> str:
  """Returns the report.

  Args:
    summary: see `replicate`.
    gflops: what an image costs, by stage.
    pictures: how many there are.
  """
  seeds = summary['seeds']
  lines = [
    "# The papers' findings on the embedded world",
    '',
    f'{summary["dataset"]}, {seeds} seed{"s" if seeds > 1 else ""}, class list '
    f'{summary["vocabulary_sha256"][:12]}. Percent, with the 95 % interval over '
    'resampled pictures' + (' and seeds' if seeds > 1 else '') + '. A relation holds, '
    'or does not, where the difference on the same pictures (and seeds) is above 0, or '
    "below, at a level of 5 % after Holm's correction for all relations of its claim; "
    'p is the corrected one. "Seeds needed" would decide the others if the difference '
    'and the spreads stay as they are. mIoU is the mean over the classes in the truth.',
    '',
    overview(summary['claims']),
  ]
  for claim, found in zip(CLAIMS, summary['claims'], strict=True):
    lines += [f'## ({claim.key}) {claim.title}', '', claim.text, '']
    lines += _table(claim, found, gflops)
    if claim.diagnosis:
      lines += [claim.diagnosis, '']
  rows = ([name, f'{value:.0f}'] for name, value in summary['seconds'].items())
  lines += ['## Time', '', *tables.markdown(['seed', 'seconds'], rows)]
  if pictures:
    lines += ['Input, truth, prediction (proposer and CLIP after FT and MPT):', '']
    lines += [f'![picture {i}](picture_{i}.png)\n' for i in range(pictures)]
  return '\n'.join(lines).rstrip('\n') + '\n'


def _table(
  claim: Claim, found: Mapping[str, Any], gflops: Mapping[str, str]
) -> list[str]:
  if not found['rows']:
    return ['Not run.', '']
  plans = {row.title: row for row in claim.rows}
  paper = any(row.paper for row in claim.rows)
  cost = any(row.cost for row in claim.rows)
  titles = ['', *claim.columns]
  titles += ['Gflop per picture (proposer + CLIP)'] if cost else []
  titles += ['paper'] if paper else []
  rows = []
  for row in found['rows']:
    plan = plans[row['title']]
    cells = [row['title'], *(_cell(x) for x in row['cells'])]
    cells += [gflops.get(plan.cost, '')] if cost else []
    cells += [plan.paper] if paper else []
    rows.append(cells)
  return [
    *tables.markdown(titles, rows),
    f'![{claim.title}](claim_{claim.key}.png)',
    '',
  ]


def _cell(estimate: Mapping[str, Any]) -> str:
  shown = f'{estimate["value"]:.1f} {_interval(estimate)}'
  seeds = estimate['seeds']
  if len(seeds) > 1:
    shown += f', seeds {min(seeds):.1f} to {max(seeds):.1f}'
  return shown


def _interval(estimate: Mapping[str, Any]) -> str:
  return tables.interval((estimate['low'], estimate['high']))


def _figure(claim: Claim, found: Mapping[str, Any]) -> Any:
  """Points with their intervals and a mark per seed, a panel for each column."""
  from matplotlib.figure import Figure

  rows, count = found['rows'], len(claim.columns)
  height = 1.2 + 0.3 * len(rows)
  figure = Figure(figsize=(1.5 + 2.6 * count, height), layout='constrained')
  panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
  places = range(len(rows))[::-1]
  for i, axes in enumerate(panels):
    cells = [row['cells'][i] for row in rows]
    values = np.array([x['value'] for x in cells])
    ends = np.array([[x['low'], x['high']] for x in cells]).T
    spread = np.maximum(np.abs(ends - values), 0)
    axes.errorbar(values, places, xerr=spread, fmt='o', capsize=3)
    for place, cell in zip(places, cells, strict=True):
      if len(cell['seeds']) > 1:
        axes.plot(cell['seeds'], [place] * len(cell['seeds']), '|', color='0.4')
    axes.set_title('\n'.join(_wrapped(claim.columns[i])), fontsize=8)
    axes.set_yticks(places, [row['title'] for row in rows], fontsize=8)
    axes.tick_params(axis='x', labelsize=8)
    axes.grid(axis='x', alpha=0.3)
  return figure


def _wrapped(title: str) -> list[str]:
  import textwrap

  return textwrap.wrap(title, 28)


def _pictures(place: Place, run: Place, names: Any) -> int:
  """Draws the kept pictures of the fully adapted model, if it was evaluated."""
  if not (place / _PICTURES / 'pictures.npz').is_file():
    return 0
  strips = draw(place / _PICTURES, _METHOD, names)
  for i, strip in enumerate(strips):
    with atomic_path(run / f'picture_{i}.png') as temporary:
      strip.save(temporary)
  return len(strips)
