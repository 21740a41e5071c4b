"""Published checkpoints: what they are, their licences and where they are."""

import csv
import dataclasses
import importlib.resources

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup


@dataclasses.dataclass(frozen=True)
class Published:
  """One checkpoint, a row of published.tsv.

  Attributes:
    family: name in `SOURCES`.
    licence: of the weights, as its publisher states it.
    place: the file itself, or the page that leads to it.
    sha256: of the file, where its publisher states it; OpenAI's addresses contain it.
    file: name of the file; empty if `place` is a page, so that people have to go.
  """

  family: str
  licence: str
  place: str
  sha256: str | None = None
  file: str = ''


def _published() -> dict[str, Published]:
  text = (importlib.resources.files(__package__) / 'published.tsv').read_text('utf-8')
  rows = csv.DictReader(text.splitlines(), delimiter='\t', quoting=csv.QUOTE_NONE)
  return {
    row.pop('name'): Published(**{**row, 'sha256': row['sha256'] or None})
    for row in rows
  }


PUBLISHED = _published()


def find(name: str) -> Published:
  """Returns the entry of a checkpoint that can be downloaded.

  Raises:
    ValueError: the name is not known, or only a page is.
  """
  item = lookup(PUBLISHED, name, 'checkpoint')
  if not item.file:
    raise UserError(
      f'{name} is not fetched from here; get it at {item.place} (licence: '
      f'{item.licence}) and convert it with --source={item.family} --input=PATH'
    )
  return item


def table() -> str:
  """Returns all checkpoints as lines of text."""
  lines = []
  for name, item in PUBLISHED.items():
    lines += [
      name,
      f'  family   {item.family}',
      f'  licence  {item.licence}',
      f'  sha256   {item.sha256 or "not published"}',
      f'  {"--download=" + name if item.file else "by hand"} from {item.place}',
    ]
  return '\n'.join(lines)
