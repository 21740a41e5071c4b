"""One file of stored inputs and outputs of a reference, and the checks against it."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Check:
  """One compared quantity.

  Attributes:
    quantity: its name in the file.
    error: the largest deviation, or for 'share' the share of equal elements.
    tolerance: what the error may be at most, or for 'share' at least.
    kind: 'abs', 'rel' (divided by the largest stored value), 'exact' or 'share'.
  """

  quantity: str
  error: float
  tolerance: float
  kind: str

  @property
  def passed(self) -> bool:
    """Whether the error is within the tolerance; NaN is not."""
    if self.kind == 'share':
      return self.error >= self.tolerance
    return self.error <= self.tolerance


class Case:
  """A file: `w/` weights, `in/` inputs, `out/` expected outputs, settings as JSON."""

  def __init__(self, path: pathlib.Path) -> None:
    self.name = path.stem
    self._seen: set[str] = set()
    with np.load(path) as arrays:
      self._arrays = {name: arrays[name] for name in arrays.files}
    self.config: dict[str, Any] = self.json('config_json')
    self.checks: list[Check] = []

  def json(self, name: str) -> Any:
    """Returns a JSON entry."""
    self._seen.add(name)
    return json.loads(str(self._arrays[name]))

  def weights(self, prefix: str = '') -> dict[str, np.ndarray]:
    """Returns the weights by name, each with `prefix` put in front."""
    return {f'{prefix}{k[2:]}': v for k, v in self._arrays.items() if k[:2] == 'w/'}

  def given(self, name: str) -> np.ndarray:
    """Returns an input."""
    return self._arrays[f'in/{name}']

  def names(self, prefix: str) -> list[str]:
    """Returns the names of arrays that start with `prefix`, without it."""
    return [k.removeprefix(prefix) for k in self._arrays if k.startswith(prefix)]

  def expected(self, name: str) -> np.ndarray:
    """Returns an output and notes that it was looked at."""
    self._seen.add(f'out/{name}')
    return self._arrays[f'out/{name}']

  def unchecked(self) -> list[str]:
    """Returns the outputs that no check looked at."""
    return [k for k in self._arrays if k[:4] == 'out/' and k not in self._seen]

  def close(
    self, name: str, got: Any, tolerance: float, *, relative: bool = False
  ) -> None:
    """Compares with output `name`; NaN equals NaN."""
    want = self.expected(name)
    self.compare(name, got, want, tolerance, relative=relative)

  def compare(
    self,
    name: str,
    got: Any,
    want: Any,
    tolerance: float,
    *,
    relative: bool = False,
  ) -> None:
    """Compares two arrays under a name of its own."""
    kind = 'rel' if relative else 'abs'
    error = deviation(got, want, relative=relative)
    self.checks.append(Check(name, error, tolerance, kind))

  def equal(self, name: str, got: Any, want: Any = None) -> None:
    """Demands equality with output `name`, or with `want`."""
    want = self.expected(name) if want is None else want
    self.checks.append(Check(name, deviation(got, want), 0.0, 'exact'))

  def agree(self, name: str, got: Any, share: float) -> None:
    """Demands that at least `share` of the elements are equal to output `name`."""
    got, want = np.asarray(got), self.expected(name)
    equal = float(np.mean(got == want)) if got.shape == want.shape else 0.0
    self.checks.append(Check(name, equal, share, 'share'))


def deviation(got: Any, want: Any, *, relative: bool = False) -> float:
  """Returns the largest absolute difference; infinite for other shapes or NaN."""
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  if got.shape != want.shape or not np.array_equal(np.isnan(got), np.isnan(want)):
    return float('inf')
  worst = float(np.nanmax(np.abs(got - want), initial=0.0))
  scale = max(float(np.nanmax(np.abs(want), initial=0.0)), 1e-30)
  return worst / scale if relative else worst


def images(pixels: np.ndarray) -> np.ndarray:
  """Returns channels-last images of channels-first ones."""
  return np.moveaxis(pixels, -3, -1)


def channels_first(pixels: Any) -> np.ndarray:
  """Inverse of `images`."""
  return np.moveaxis(np.asarray(pixels), -1, -3)


def table(cases: Mapping[str, list[Check]]) -> str:
  """Returns the checks as a table, one line each."""
  lines = [('case', 'quantity', 'error', 'tolerance', 'kind', '')]
  for case, checks in cases.items():
    for c in checks:
      verdict = 'ok' if c.passed else 'FAIL'
      error = f'{c.error:.6f}' if c.kind == 'share' else f'{c.error:.2e}'
      lines.append((case, c.quantity, error, f'{c.tolerance:g}', c.kind, verdict))
  widths = [max(len(line[i]) for line in lines) for i in range(6)]
  rows = ([x.ljust(n) for x, n in zip(line, widths, strict=True)] for line in lines)
  return '\n'.join('  '.join(row).rstrip() for row in rows)
