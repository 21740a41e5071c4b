"""Classes as users give them: names, and the words that stand for each of them."""

import codecs
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, place
from ovs_jax.core.lookup import lookup
from ovs_jax.text.tokenizer import clean
from ovs_jax.text.vocabulary import parse_names

# 'mean': the L2-normalised mean of the words' embeddings. 'max': the best word counts,
# for each proposal anew. 'paper': all words as one string with commas, as OVSeg does.
SYNONYMS = ('mean', 'max', 'paper')


@dataclasses.dataclass(frozen=True)
class Classes:
  """What is asked for.

  Attributes:
    names: as results show them.
    words: for each name what is embedded; without synonyms, the name alone.
  """

  names: tuple[str, ...]
  words: tuple[tuple[str, ...], ...]

  def __len__(self) -> int:
    """The number of names."""
    return len(self.names)

  def __add__(self, other: 'Classes') -> 'Classes':
    """These classes, then the others; nothing is checked for repeats."""
    return Classes(self.names + other.names, self.words + other.words)

  def texts(self, synonyms: str) -> tuple[tuple[str, ...], ...]:
    """Returns the strings to embed for each class under a rule of `SYNONYMS`."""
    if check_synonyms(synonyms) != 'paper':
      return self.words
    return tuple((', '.join(words),) for words in self.words)


NOTHING = Classes((), ())

# Objects, because what is no string gets an error of its own.
Names = str | Mapping[str, Iterable[object]] | Iterable[object] | Classes


def check_synonyms(synonyms: str) -> str:
  """Returns the rule, if it is one of `SYNONYMS`."""
  return lookup({rule: rule for rule in SYNONYMS}, synonyms, 'rule for synonyms')


def parse_classes(names: Names) -> Classes:
  """Reads names with or without synonyms.

  Args:
    names: 'red ball, grass'; or one string per name; or {shown name: words}. The words
      alone are embedded, so list the shown name among them if it is one; without words
      it is embedded itself. A word given twice for a class counts once. `Classes`
      stay as they are.

  Raises:
    ValueError: names are none, blank, repeated (case does not count), or no strings;
      or words are blank or no strings.
  """
  if isinstance(names, Classes):
    return names
  if not isinstance(names, Mapping):
    found = parse_names(names)
    return Classes(found, tuple((name,) for name in found))
  shown = parse_names(names.keys())
  words = [
    _parse_words(given, name) for name, given in zip(shown, names.values(), strict=True)
  ]
  return Classes(shown, tuple(words))


def parse_background(names: Names | None, classes: Classes) -> Classes:
  """Reads names that compete with `classes` and become no label; may be none.

  Raises:
    ValueError: as `parse_classes`, or a name is among `classes` too.
  """
  if names is None or (not isinstance(names, (str, Classes)) and not names):
    return NOTHING
  found = parse_classes(names)
  asked = {clean(name) for name in classes.names}
  both = [name for name in found.names if clean(name) in asked]
  if both:
    raise UserError(
      f'{both} are both class names and background (case does not count). Keep each '
      'in one of them.'
    )
  return found


def read_names(path: Path) -> Classes:
  """Reads a file of names, one class per line, UTF-8.

      # a comment; blank lines are skipped
      dog
      car: automobile, motor car   # embedded: car, automobile, motor car
      toilet, can, commode         # no colon: the whole line is one name

  The name is what results show, and one of the words. The first colon ends it. A '#'
  starts a comment at the start of a line or after white space. UTF-16 with a byte order
  mark, line ends of any system, and lists of other programs (see `as_list`) are read
  too; a name with a colon stands in quotes.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not UTF-8, has no names, a name is blank, or two lines have the
      same one (case does not count).
  """
  names, words, lines = [], [], {}
  text = [re.sub(r'(^|\s)#.*', '', line) for line in read_text(path).split('\n')]
  for number, (_, line) in enumerate(as_list(text), 1):
    if not line.strip():
      continue
    where = f'line {number} of {path}'
    plain = unquoted(line)
    name, colon, rest = line.partition(':') if plain == line else (plain, '', '')
    if '\t' in name.strip():
      raise UserError(
        f'{where} has a tab in it; write one class per line, as "name" or "name: '
        'synonym, synonym"'
      )
    name = ' '.join(name.split())
    if not name:
      raise UserError(
        f'{where} has no name before the colon; expected "name" or '
        '"name: synonym, synonym"'
      )
    if (key := clean(name)) in lines:
      raise UserError(
        f'lines {lines[key]} and {number} of {path} both name {name!r} (case '
        'does not count); keep one'
      )
    synonyms = rest.split(',') if colon else []
    if colon and not all(synonym.strip() for synonym in synonyms):
      raise UserError(
        f'{where} has a blank synonym; expected "name: synonym, synonym", or the name '
        'without a colon'
      )
    lines[key] = number
    names.append(name)
    words.append(_parse_words([name, *synonyms], name))
  if not names:
    raise UserError(
      f'{path} has no names; write one per line, as "name" or "name: synonym, synonym"'
    )
  return Classes(tuple(names), tuple(words))


# The first line of tables that other programs write.
_HEADER = re.compile(
  r'\s*(id|idx|index|value|number)\s*[,;\t]\s*(name|class|label|class_name)s?\s*', re.I
)
_NUMBERED = re.compile(r'\s*(\d+)\s*[:,;\t]\s*(\S.*)')
_ITEM = re.compile(r'\s*[-*]\s+(\S.*)')


def as_list(lines: Sequence[str]) -> list[tuple[int | None, str]]:
  """Reads the lines of a list of classes as they are meant.

  Where all of them have a number before a colon, a comma or a tab ("1: cat"), or a dash
  ("- cat"), these are no part of the names; nor is a header ("id,name").

  Args:
    lines: of a file; blank ones stay as they are.

  Returns:
    Of each line its number, or None, and what is left of it.
  """
  kept = list(lines)
  filled = [i for i, line in enumerate(lines) if line.strip()]
  if filled and _HEADER.fullmatch(lines[filled[0]]):
    kept[filled.pop(0)] = ''
  for pattern in (_NUMBERED, _ITEM):
    matches = {i: pattern.fullmatch(kept[i].rstrip()) for i in filled}
    if not filled or not all(matches.values()):
      continue
    found: list[tuple[int | None, str]] = [(None, '')] * len(kept)
    for i, match in matches.items():
      assert match
      *number, name = match.groups()
      found[i] = (int(number[0]) if number else None, name)
    return found
  return [(None, line) for line in kept]


def unquoted(text: str) -> str:
  """Returns what stands between quotes, if all of the text does; else the text."""
  found = re.fullmatch(r'\s*"([^"]+)"\s*', text)
  return found[1] if found else text


def hints(names: Sequence[str]) -> list[str]:
  """Returns sentences about names that are probably not meant as they are."""
  found = []
  for name in names:
    parts = [part.strip() for part in re.split(r'[;|]|\.(?=\s|\w|$)', name)]
    parts = [part for part in parts if part]
    if len(parts) > 1 or re.search(r'[;|.]$', name):
      several = ', '.join(parts)
      found.append(f'{name!r} is one name; separate names with commas: "{several}"')
    elif '_' in name:
      plain = name.replace('_', ' ')
      found.append(f'{name!r} is read with its underscore; {plain!r} is a better name')
    elif not re.search(r'[A-Za-z0-9]', name):
      found.append(f'{name!r} has no Latin letter; the published CLIPs know English')
  return found


def read_text(path: Path) -> str:
  """Returns a text file of names, with '\n' for every line end.

  Raises:
    FileNotFoundError, ValueError: there is none, or it is neither UTF-8 nor UTF-16.
  """
  path = place(path)
  if not path.exists():
    raise FileNotFoundError(
      f'names file {path} not found; expected a text file with one name per line'
    )
  if not path.is_file():
    raise UserError(f'names file {path} is no regular file; give a text file')
  data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
  wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
  try:
    text = data.decode('utf-16' if wide else 'utf-8')
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b'\n') + 1
    raise UserError(
      f'names file {path} is not UTF-8 (line {line}: byte {data[error.start]:#04x}); '
      'save it as UTF-8'
    ) from error
  if '\0' in text:
    raise UserError(f'names file {path} is not a text file; save it as UTF-8')
  return text.replace('\r\n', '\n').replace('\r', '\n')


def _parse_words(given: Iterable[object], name: str) -> tuple[str, ...]:
  """Returns the words of a class, each once; the name where there are none."""
  if isinstance(given, str):
    raise UserError(
      f'the synonyms of {name!r} are the string {given!r}; put them in a list: '
      f'{{{name!r}: [{given!r}]}}'
    )
  words = list(given)
  wrong = [word for word in words if not isinstance(word, str)]
  if wrong:
    raise UserError(f'the synonyms of {name!r} must be strings, got {wrong}')
  words = [' '.join(word.split()) for word in words]
  if '' in words:
    raise UserError(f'a synonym of {name!r} is blank; remove it')
  once = {clean(word): word for word in reversed(words)}
  return tuple(once[key] for key in dict.fromkeys(map(clean, words))) or (name,)
