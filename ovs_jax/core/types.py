"""Array annotations and the letters that they use.

Letters: `b` batch, `h w` pixels, `y x` feature grid, `s` crop side, `n` tokens
(patches), `q` proposals or queries, `r` regions, `t` targets or text length, `k`
classes, `d` width, `p` prompt depth, `l` layers, `c` feature channels.

The annotations cost nothing at run time; the tests check them by an import hook.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num, Shaped, UInt, UInt8

Params = Mapping[str, Any]
Constants = Mapping[str, Any]  # what a loss reads beside them: frozen, in no checkpoint
Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]


def void_of(dtype: Any) -> int:
  """Returns the label of pixels without ground truth in maps of this integer type.

  It is the largest number of the type: in 16 bits, 255 is a class like the others.
  """
  return int(np.iinfo(dtype).max)


VOID = void_of(np.uint8)  # of maps with at most 255 classes
VOID_16 = void_of(np.uint16)  # of maps with more
# The label that a model gives to pixels, masks and proposals of no name.
NO_LABEL = -1

__all__ = [
  'NO_LABEL',
  'VOID',
  'VOID_16',
  'Array',
  'Batch',
  'Bool',
  'Constants',
  'Float',
  'Int',
  'Key',
  'Metrics',
  'Num',
  'Params',
  'Shaped',
  'UInt',
  'UInt8',
  'void_of',
]
