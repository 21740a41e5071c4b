"""A user's own examples for CLIPSeg: a table of images, masks and phrases.

    image,mask,phrase
    photos/1.jpg,masks/1_cup.png,a red cup
    photos/1.jpg,masks/1_lid.png,the lid of the cup

UTF-8, comma-separated with a heading. Paths are relative to the table. A mask is not 0
where the phrase applies, and has the size of its image. An image may have many phrases.
"""

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, local
from ovs_jax.core.images import read_image
from ovs_jax.core.masks import read_mask
from ovs_jax.core.types import Bool, Int, UInt8

COLUMNS = ('image', 'mask', 'phrase')
_SHOWN = 8  # problems that an error lists
_DRAWS = 50  # crops that are tried (CLIPSeg's)
_MINIMUM = 0.05  # of the whole image that the mask inside a crop must exceed
Example = tuple[UInt8[np.ndarray, 's s 3'], Bool[np.ndarray, 's s'], int]


@dataclasses.dataclass(frozen=True)
class Row:
  """One example.

  Attributes:
    image: file of the picture.
    mask: file of the mask.
    phrase: index into the phrases of the table.
  """

  image: pathlib.Path
  mask: pathlib.Path
  phrase: int


@dataclasses.dataclass(frozen=True)
class PhraseTable:
  """All examples.

  Attributes:
    rows: in the order of the file.
    phrases: each once, in the order of their first use.
  """

  rows: tuple[Row, ...]
  phrases: tuple[str, ...]

  @functools.cached_property
  def phrases_of(self) -> Mapping[pathlib.Path, tuple[int, ...]]:
    """The phrases of every image, each once, ascending; made once."""
    found: dict[pathlib.Path, set[int]] = {}
    for row in self.rows:
      found.setdefault(row.image, set()).add(row.phrase)
    return {image: tuple(sorted(phrases)) for image, phrases in found.items()}

  def other_phrase(self, image: pathlib.Path, place: int) -> int:
    """Returns the `place`-th, from 0, of the phrases that are not the image's."""
    for own in self.phrases_of[image]:
      if own > place:
        break
      place += 1
    return place


def read_table(path: Path) -> PhraseTable:
  """Reads a table and looks whether all its files are there.

  Raises:
    FileNotFoundError: there is no such table.
    ValueError: with everything that is wrong with it.
  """
  path = local(path)
  if not path.is_file():
    raise FileNotFoundError(
      f'phrase table {path} not found; expected a CSV file with the columns '
      f'{", ".join(COLUMNS)}, see config.phrases.table'
    )
  with path.open(newline='', encoding='utf-8-sig') as file:
    reader = csv.DictReader(file)
    lacking = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if lacking:
      raise UserError(
        f'{path} has no column {", ".join(lacking)}; its first line must name '
        f'{",".join(COLUMNS)}'
      )
    lines = list(reader)
  problems, rows, phrases = [], [], {}
  for number, line in enumerate(lines, 2):
    cells = {c: (line[c] or '').strip() for c in COLUMNS}
    empty = [c for c, cell in cells.items() if not cell]
    files = {c: path.parent / cells[c] for c in ('image', 'mask')}
    absent = [str(f) for c, f in files.items() if c not in empty and not f.is_file()]
    problems += [f'line {number}: no {c}' for c in empty]
    problems += [f'line {number}: {f} not found' for f in absent]
    if not empty:
      phrase = phrases.setdefault(cells['phrase'], len(phrases))
      rows.append(Row(files['image'], files['mask'], phrase))
  if not lines:
    problems.append('it has no examples')
  if problems:
    more = len(problems) - _SHOWN
    shown = '; '.join(problems[:_SHOWN]) + (f'; and {more} more' if more > 0 else '')
    raise UserError(f'{len(problems)} problems in {path}: {shown}')
  return PhraseTable(tuple(rows), tuple(phrases))


def table_batches(
  table: PhraseTable,
  *,
  size: int,
  crop: str,
  negative: float,
  batch_size: int,
  seed: int,
  start: int,
  rows: Int[np.ndarray, 'r'] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields `image` (b s s 3), `mask` (b s s) and `phrase` (b) for each step.

  A pure function of seed and step. Every epoch has all examples once, in another order;
  the last ones that fill no batch are left for the next.

  Args:
    table: the examples.
    size: side of the images.
    crop: 'none' squashes whole images, 'square' cuts out a random square of the shorter
      side that shows the thing (CLIPSeg's training).
    negative: share of examples with a phrase of another image and an empty mask.
    batch_size: of all processes together.
    seed: of order, crops and negatives.
    start: the first step.
    rows: of every batch that this process reads, in order; None: all. So the batches
      are the same on any number of processes.

  Raises:
    ValueError: fewer examples than a batch, a file that cannot be read, or a mask of
      another size than its image.
  """
  count = len(table.rows)
  if count < batch_size:
    raise UserError(
      f'the phrase table has {count} examples, fewer than one batch of {batch_size}; '
      'lower config.train.batch_size or add examples'
    )
  per_epoch = count // batch_size
  rows = np.arange(batch_size) if rows is None else rows
  step, ordered = start, -1
  while True:
    epoch, place = divmod(step, per_epoch)
    if epoch != ordered:
      order = np.random.default_rng([seed, epoch]).permutation(count)
      ordered = epoch
    examples = []
    for i in order[place * batch_size + rows]:
      rng = np.random.default_rng([seed, epoch, int(i), 1])
      examples.append(_example(table, int(i), size, crop, negative, rng))
    images, masks, phrases = zip(*examples, strict=True)
    yield {
      'image': np.stack(images),
      'mask': np.stack(masks),
      'phrase': np.array(phrases, np.int32),
    }
    step += 1


def _example(
  table: PhraseTable,
  index: int,
  size: int,
  crop: str,
  negative: float,
  rng: np.random.Generator,
) -> Example:
  row = table.rows[index]
  image, mask = read_image(row.image), read_mask(row.mask)
  if mask.shape != image.shape[:2]:
    raise UserError(
      f'{row.mask} has {mask.shape[0]}x{mask.shape[1]} pixels, its image {row.image} '
      f'{image.shape[0]}x{image.shape[1]}; both must have the same size'
    )
  others = len(table.phrases) - len(table.phrases_of[row.image])
  phrase = row.phrase
  if others and rng.random() < negative:
    phrase = table.other_phrase(row.image, int(rng.integers(others)))
    mask = np.zeros_like(mask)
  elif crop == 'square':
    image, mask = _square(image, mask, rng)
  small = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
  nearest = Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
  return np.asarray(small), np.asarray(nearest), phrase


def _square(
  image: UInt8[np.ndarray, 'h w 3'],
  mask: Bool[np.ndarray, 'h w'],
  rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, 'n n 3'], Bool[np.ndarray, 'n n']]:
  """The first of some random squares that shows enough of the mask, else the best."""
  side = min(mask.shape)
  best, most = (0, 0), -1
  for _ in range(_DRAWS):
    top, left = (int(rng.integers(0, n - side + 1)) for n in mask.shape)
    shown = int(mask[top : top + side, left : left + side].sum())
    if shown > most:
      best, most = (top, left), shown
    if shown > _MINIMUM * mask.size:
      break
  top, left = best
  window = (slice(top, top + side), slice(left, left + side))
  return image[window], mask[window]
