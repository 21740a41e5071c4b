"""What the two papers claim, as tables and inequalities over a replication's stages.

A claim names the stages of configs/replicate.py whose counts it needs.
"""

import dataclasses

from ovs_jax.evaluate.resampling import Gain, Quantity

ENSEMBLE = 'ensemble_0.20'
_UNSEEN, _SEEN = 'unseen', 'seen'
_SYSTEMS = ('no_training', 'prefix', 'cross')


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a claim's table.

  Attributes:
    title: of the variant.
    cells: a quantity per column.
    paper: what the paper has for it, '' for nothing.
    cost: stage whose operations per image are shown, '' for none.
  """

  title: str
  cells: tuple[Quantity | Gain, ...]
  paper: str = ''
  cost: str = ''


@dataclasses.dataclass(frozen=True)
class Relation:
  """An inequality; a gain in `higher` with `lower` None is claimed to be positive."""

  title: str
  lower: Quantity | Gain
  higher: Quantity | Gain


@dataclasses.dataclass(frozen=True)
class Claim:
  """A table, and what the paper says of it.

  Attributes:
    key: its letter.
    title: of the table.
    text: the claim in words, with its source.
    columns: titles of the columns.
    rows: of the table.
    relations: what the claim comes down to.
    diagnosis: what explains the outcome here, printed below the table.
  """

  key: str
  title: str
  text: str
  columns: tuple[str, ...]
  rows: tuple[Row, ...]
  relations: tuple[Relation, ...]
  diagnosis: str = ''


_FOUR = (
  'pictures, unseen mIoU',
  'pictures, mIoU',
  'true masks, unseen mIoU',
  'crops of proposals, unseen accuracy',
)


def _four(stage: str, method: str = ENSEMBLE) -> tuple[Quantity, ...]:
  """Whole pictures (two means), CLIP on true masks, CLIP on proposals' crops."""
  return (
    Quantity(stage, method, group=_UNSEEN),
    Quantity(stage, method),
    Quantity(stage, 'oracle_masks', group=_UNSEEN),
    Quantity(stage, 'crop_proposal', 'accuracy', _UNSEEN),
  )


def _steps(
  rows: tuple[Row, ...], order: tuple[tuple[int, int], ...], columns: tuple[int, ...]
) -> tuple[Relation, ...]:
  """The claim that the first row of each pair is below the second, by column."""
  return tuple(
    Relation(
      f'{rows[a].title} < {rows[b].title}: {_FOUR[c]}',
      rows[a].cells[c],
      rows[b].cells[c],
    )
    for c in columns
    for a, b in order
  )


def _bottleneck() -> Claim:
  masks = Quantity('evaluate_frozen', 'oracle_masks')
  classes = Quantity('evaluate_frozen', 'oracle_classes')
  return Claim(
    'a',
    'CLIP on masked images is the bottleneck',
    'OVSeg, section 1: with true masks and the frozen CLIP far less is right than with '
    'proposals and their true classes (ADE20K-150).',
    ('mIoU',),
    (
      Row('true masks, frozen CLIP', (masks,), '20.1'),
      Row('proposals, true class', (classes,), '66.5'),
      Row('both real: frozen OVSeg', (Quantity('evaluate_frozen', ENSEMBLE),), '21.8'),
    ),
    (Relation('true masks, frozen CLIP < proposals, true class', masks, classes),),
    "The paper's proposer is a Swin-B that starts from ImageNet and sees 118,000 "
    'photos; the one here trains for minutes, and its CLIP was trained on pictures of '
    'the same world. Which half is the bottleneck depends on the budget of each.',
  )


def _methods() -> Claim:
  rows = (
    Row('frozen', _four('evaluate_frozen'), '21.8'),
    Row('MPT', _four('evaluate_mpt'), '26.5'),
    Row('FT', _four('evaluate_ft'), '28.8'),
    Row('FT, then MPT', _four('evaluate_mpt_ft'), '29.6'),
  )
  return Claim(
    'b',
    'Ways to adapt CLIP',
    'OVSeg, Table 3 (mIoU on ADE20K-150): frozen < MPT < FT <= MPT after FT.',
    _FOUR,
    rows,
    _steps(rows, ((0, 1), (0, 2), (1, 2), (2, 3)), (0, 3)),
  )


def _data() -> Claim:
  stages = ('frozen', 'ft_classes', 'ft_truth', 'ft_one', 'ft')
  titles = (
    'frozen',
    'true masks, their classes',
    'true masks, nouns of 1 caption',
    'proposals, nouns of 1 caption',
    'proposals, nouns of 5 captions',
  )
  seen = {
    s: (
      Quantity(f'evaluate_{s}', ENSEMBLE, group=_SEEN),
      Quantity(f'evaluate_{s}', 'crop_proposal', 'accuracy', _SEEN),
    )
    for s in stages
  }
  columns = ('pictures, seen mIoU', 'crops of proposals, seen accuracy')
  rows = tuple(
    Row(title, (*_four(f'evaluate_{stage}'), *seen[stage]), paper)
    for stage, title, paper in zip(
      stages, titles, ('21.8', '23.0', '24.2', '28.8', '28.6'), strict=True
    )
  )
  more = tuple(
    Relation(f'{titles[3]} < {titles[1]}: {column}', one, classes)
    for column, one, classes in zip(
      columns, seen['ft_one'], seen['ft_classes'], strict=True
    )
  )
  return Claim(
    'c',
    'What CLIP is fine-tuned on',
    'OVSeg, Table 2 (mIoU on ADE20K-150): nouns of captions serve unseen classes '
    'better than class names, which serve seen ones (57.3 against 55.7 on Pascal '
    'Context 59); proposals serve better than true masks; 5 captions no better than 1.',
    (*_FOUR, *columns),
    rows,
    (*_steps(rows, ((1, 3), (2, 3)), (0, 3)), *more),
    'The true masks of the training pictures are of seen classes only, so nouns of '
    'unseen ones find none.',
  )


def _masking() -> Claim:
  rows = (
    Row('frozen, crops as they are', _four('evaluate_natural'), 'worse'),
    Row('frozen, background masked out', _four('evaluate_frozen')),
  )
  return Claim(
    'd',
    'Masking the background of crops',
    'OVSeg, section 3.1 and appendix: cropping without masking out the background is '
    'worse.',
    _FOUR,
    rows,
    _steps(rows, ((0, 1),), (0, 2, 3)),
  )


def _depth() -> Claim:
  rows = (
    Row('0 (frozen)', _four('evaluate_frozen')),
    Row('1', _four('evaluate_mpt_1')),
    Row('3', _four('evaluate_mpt'), 'the one chosen'),
    Row('all 4', _four('evaluate_mpt_4')),
  )
  return Claim(
    'e',
    'Depth of mask prompts',
    'OVSeg, section 4.1 takes depth 3: prompts at the input and after two more blocks.',
    _FOUR,
    rows,
    _steps(rows, ((0, 1), (1, 2)), (0, 3)),
  )


def _priors() -> Claim:
  rows = (
    Row('frozen', _four('evaluate_frozen')),
    Row('proposals', _four('evaluate_ft')),
    Row('true masks', _four('evaluate_ft_truth')),
    Row('boxes, evaluated on masks', _four('evaluate_ft_box')),
    Row('boxes, evaluated on boxes', _four('evaluate_ft_box_natural')),
  )
  return Claim(
    'e2',
    'What fine-tuning sees: proposals, true masks, boxes',
    'OVSeg, section 3.3 and Table 2: what CLIP is adapted to must be what it will see.',
    _FOUR,
    rows,
    _steps(rows, ((2, 1), (3, 1), (4, 1)), (0, 3)),
  )


def _sizes() -> Claim:
  sizes = (
    ('proposer at 96', 'evaluate_side_96'),
    ('proposer at 128, CLIP at 48', 'evaluate_ft'),
    ('proposer at 192', 'evaluate_side_192'),
    ('CLIP at 32', 'evaluate_clip_32'),
    ('CLIP at 64', 'evaluate_clip_64'),
  )
  rows = tuple(Row(title, _four(stage), cost=stage) for title, stage in sizes)
  return Claim(
    'e3',
    'Input sizes of mask generation and of mask recognition',
    'Not in the paper: where does a pixel of input pay? Both networks were trained at '
    'one size (128 and 48) and see the others for the first time.',
    _FOUR,
    rows,
    (),
  )


def _curves() -> Claim:
  rows = []
  for weight in ('0.20', '0.50', '0.80'):
    method = f'ensemble_{weight}'
    rows.append((f'lambda {weight}', 'tune_mpt', 'evaluate_mpt', method))
  rows.append(('lambda 1 (CLIP alone)', 'tune_mpt', 'evaluate_mpt', 'clip'))
  rows.append(('lambda 0 (proposer alone)', 'tune_mpt', 'evaluate_mpt', 'proposer'))
  for number in (40, 50, 70):
    stages = (f'tune_{number}', f'evaluate_{number}')
    rows.append((f'threshold 0.{number // 10}', *stages, ENSEMBLE))
  return Claim(
    'f',
    'The share of CLIP and the mask threshold',
    'OVSeg tunes lambda for each data set (0.7, 0.6, 0.45). Here the setting is chosen '
    'on training pictures, by the classes whose masks training had, and read once on '
    'val. Thresholds are with lambda 0.2; that of the other rows is 0.6.',
    ('training split, seen mIoU', 'val, mIoU', 'val, unseen mIoU'),
    tuple(
      Row(
        title,
        (
          Quantity(tune, method, group=_SEEN),
          Quantity(stage, method),
          Quantity(stage, method, group=_UNSEEN),
        ),
      )
      for title, tune, stage, method in rows
    ),
    (),
  )


def _coseg(system: str, method: str = 'A', **options: object) -> Quantity:
  stage = 'evaluate_coseg' if system in _SYSTEMS else 'evaluate_ablations'
  return Quantity(stage, f'{system}/standard/{method}', **options)  # type: ignore[arg-type]


def _trained() -> Claim:
  def cells(system: str) -> tuple[Quantity, ...]:
    several = _coseg(system, present=(4, 99))
    return (_coseg(system), several, _coseg(system, group=_UNSEEN))

  titles = {'no_training': '31.2', 'prefix': '52.7', 'cross': '54.2'}
  rows = tuple(Row(s.replace('_', ' '), cells(s), p) for s, p in titles.items())
  relations = tuple(
    Relation(
      f'no training < {rows[i].title}: {column}', rows[0].cells[c], rows[i].cells[c]
    )
    for c, column in enumerate(('mIoU', 'mIoU of pictures with 4 classes or more'))
    for i in (1, 2)
  )
  return Claim(
    'g',
    'CoSeg with and without training',
    'CoSeg, main table (Pascal Context 59): no training < prefix, cross-attention.',
    ('mIoU', 'mIoU, pictures with 4 classes or more', 'unseen mIoU'),
    rows,
    relations,
  )


def _context() -> Claim:
  rows, gains = [], []
  for low, high in ((1, 4), (5, 5), (6, 6), (7, 7), (8, 99)):
    alone = _coseg('prefix_alone', present=(low, high))
    joint = _coseg('prefix', present=(low, high))
    gains.append(Gain(alone, joint))
    title = {1: f'{high} or fewer', 8: f'{low} or more'}.get(low, str(low))
    rows.append(Row(f'{title} classes', (alone, joint, gains[-1])))
  whole = (_coseg('prefix_alone'), _coseg('prefix'))
  rows.append(Row('all pictures', (*whole, Gain(*whole))))
  return Claim(
    'h',
    'Does context help?',
    "CoSeg's title: labels are predicted together because things occur together. Slots "
    'alone attend to the picture but not to each other.',
    ('slots alone, mIoU', 'slots together, mIoU', 'gain'),
    tuple(rows),
    (
      Relation('slots alone < slots together: all pictures', *whole),
      Relation('gain with 4 classes or fewer < with 8 or more', gains[0], gains[-1]),
    ),
  )


def _beyond() -> Claim:
  variants = (
    ('prefix', 'Hungarian matching, dice'),
    ('prefix_area_sort', 'slots sorted by area (the paper), dice'),
    ('prefix_no_dice', 'Hungarian matching, no dice'),
    ('prefix_size', 'Hungarian matching, dice, size embedding'),
  )
  rows = tuple(
    Row(title, (_coseg(s), _coseg(s, present=(4, 99)))) for s, title in variants
  )
  base = rows[0]
  return Claim(
    'i',
    'Dice, Hungarian matching, size information',
    "What CoSeg's conclusion asks for, one at a time.",
    ('mIoU', 'mIoU, pictures with 4 classes or more'),
    rows,
    (
      Relation('area sort < Hungarian matching', rows[1].cells[0], base.cells[0]),
      Relation('no dice < dice', rows[2].cells[0], base.cells[0]),
      Relation('no size < size embedding', base.cells[0], rows[3].cells[0]),
    ),
  )


def _distractors() -> Claim:
  def cells(count: int) -> tuple[Quantity, ...]:
    ovseg = f'distractors_{count}' if count else ENSEMBLE
    coseg = f'A, {count} more names' if count else 'A'
    return (
      Quantity('evaluate_mpt', ovseg),
      *(_coseg(system, coseg) for system in _SYSTEMS),
    )

  rows = tuple(Row(f'{n} irrelevant names', cells(n)) for n in (0, 10, 100, 1000))
  losses = [Gain(rows[-1].cells[c], rows[0].cells[c]) for c in range(4)]  # type: ignore
  return Claim(
    'j',
    'Irrelevant names in the list',
    'An open vocabulary must bear names that the picture does not show.',
    ('OVSeg (MPT)', 'CoSeg, no training', 'CoSeg, prefix', 'CoSeg, cross'),
    rows,
    (
      Relation('OVSeg loses less than CoSeg, prefix, does', losses[0], losses[2]),
      Relation('OVSeg loses less than CoSeg without training', losses[0], losses[1]),
    ),
  )


CLAIMS = (
  _bottleneck(),
  _methods(),
  _data(),
  _masking(),
  _depth(),
  _priors(),
  _sizes(),
  _curves(),
  _trained(),
  _context(),
  _beyond(),
  _distractors(),
)
