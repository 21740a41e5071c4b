"""What is typed into the page, read as names, synonyms and background."""

import dataclasses

from ovs_jax.core.errors import UserError
from ovs_jax.demo.limits import Limits
from ovs_jax.text.classes import Classes, hints, parse_background, parse_classes
from ovs_jax.text.vocabulary import parse_names


@dataclasses.dataclass(frozen=True)
class Asked:
  """What to look for.

  Attributes:
    classes: that get a colour.
    background: names that compete too, and get none.
  """

  classes: Classes
  background: Classes

  @property
  def notes(self) -> list[str]:
    """Sentences about names that are probably not meant as they are."""
    return hints(self.classes.names + self.background.names)


def read_asked(names: str, background: str, limits: Limits) -> Asked:
  """Reads both boxes of the page.

  Args:
    names: "a cup, a lid" on as many lines as one likes; a line with a colon is one
      name and its synonyms: "car: automobile, motor car".
    background: the same.
    limits: of the number of names.

  Raises:
    ValueError: names are none, blank, repeated, too many, or in both boxes.
  """
  if not names.strip():
    raise UserError('type what to look for, such as: a cup, a lid')
  classes = _read(names)
  found = parse_background(_read(background) if background.strip() else None, classes)
  if (count := len(classes) + len(found)) > limits.names:
    raise UserError(f'{count} names; this page takes up to {limits.names} at once')
  return Asked(classes, found)


def _read(text: str) -> Classes:
  shown: list[str] = []
  words: list[list[str]] = []
  for line in text.splitlines():
    name, colon, synonyms = line.partition(':')
    if colon:
      shown.append(name)
      words.append([name, *(s for s in synonyms.split(',') if s.strip())])
      continue
    alone = [part for part in line.split(',') if part.strip()]
    shown += alone
    words += [[part] for part in alone]
  found = parse_names(shown)
  return parse_classes(dict(zip(found, words, strict=True)))
