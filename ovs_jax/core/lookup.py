"""Names that users type, looked up in plain tables."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ovs_jax.core.errors import UserError

T = TypeVar('T')


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns ' Did you mean ...?' for a near miss, else an empty string."""
  close = difflib.get_close_matches(name, list(known), n=1)
  return f' Did you mean {close[0]!r}?' if close else ''


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
  """Returns `table[name]`.

  Raises:
    ValueError: `name` is not in the table; lists what is, and the closest one.
  """
  if name in table:
    return table[name]
  raise UserError(
    f'unknown {what} {name!r}; known: {", ".join(sorted(table))}.'
    f'{did_you_mean(name, table)}'
  )
