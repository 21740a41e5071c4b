"""Published checkpoints: what they are, their licences and where they are."""

import csv
import dataclasses
import importlib.resources

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup

_HUB = 'https://huggingface.co/'


@dataclasses.dataclass(frozen=True)
class Published:
  """One checkpoint, a row of published.tsv.

  Attributes:
    family: name in `SOURCES`.
    licence: of the weights, as its publisher states it.
    place: the file itself, a repository of the Hugging Face hub, or the page that leads
      to it.
    sha256: of the file, where its publisher states it; OpenAI's addresses contain it.
    file: name of the file; empty if `place` is a repository or a page.
  """

  family: str
  licence: str
  place: str
  sha256: str | None = None
  file: str = ''

  @property
  def repository(self) -> str:
    """ORG/NAME on the Hugging Face hub; empty if it is not there."""
    return self.place.removeprefix(_HUB) if self.place.startswith(_HUB) else ''


def _published() -> dict[str, Published]:
  text = (importlib.resources.files(__package__) / 'published.tsv').read_text('utf-8')
  rows = csv.DictReader(text.splitlines(), delimiter='\t', quoting=csv.QUOTE_NONE)
  return {
    row.pop('name'): Published(**{**row, 'sha256': row['sha256'] or None})
    for row in rows
  }


PUBLISHED = _published()


def named(text: str) -> str | None:
  """Returns the name that a text is, or that has it as its repository; or None."""
  if text in PUBLISHED:
    return text
  found = [n for n, x in PUBLISHED.items() if x.repository.rpartition('/')[2] == text]
  return found[0] if text and found else None


def find(name: str) -> Published:
  """Returns the entry of a checkpoint that can be downloaded.

  Raises:
    ValueError: the name is not known, or only a page is.
  """
  item = lookup(PUBLISHED, named(name) or name, 'checkpoint')
  if not item.file and not item.repository:
    raise UserError(
      f'{name} is not fetched from here; get it at {item.place} (licence: '
      f'{item.licence}) and convert it with --source={item.family} --input=PATH'
    )
  return item


def table() -> str:
  """Returns all checkpoints as lines of text."""
  lines = []
  for name, item in PUBLISHED.items():
    can = bool(item.file or item.repository)
    how = f'by name, or --download={name!r},' if can else 'by hand'
    lines += [
      name,
      f'  family   {item.family}',
      f'  licence  {item.licence}',
      f'  sha256   {item.sha256 or "not published"}',
      f'  {how} from {item.place}',
    ]
  return '\n'.join(lines)
