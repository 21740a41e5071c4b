"""How well variants agree, found out on their first runs, which are not timed."""

from collections.abc import Callable
from typing import Any

import numpy as np


class Agreement:
  """Runs variants, and writes into `facts` what their results have in common."""

  def __init__(self, facts: dict[str, Any]) -> None:
    """The first result that comes is what the others are compared with."""
    self.facts = facts
    self._first: np.ndarray | None = None

  def labels(self, name: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """Returns `run`, which gives a label map or a tuple that begins with one."""
    return self._watch(name, run, 'labels equal', lambda a, b: float((a == b).mean()))

  def values(self, name: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """Returns `run`, which gives an array."""
    return self._watch(
      name, run, 'largest difference', lambda a, b: float(np.abs(a - b).max())
    )

  def _watch(
    self, name: str, run: Callable[[], Any], what: str, compare: Callable[..., float]
  ) -> Callable[[], Any]:
    def watched() -> Any:
      found = run()
      key = f'{what}: {name}'
      if self._first is None or key not in self.facts:
        array = np.asarray(found[0] if isinstance(found, tuple) else found)
        self._first = array if self._first is None else self._first
        self.facts[key] = compare(self._first, array)
      return found

    return watched
