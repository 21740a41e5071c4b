"""Array annotations and the letters that they use.

Letters: `b` batch, `h w` pixels, `y x` feature grid, `s` crop side, `n` tokens
(patches), `q` proposals or queries, `r` regions, `t` targets or text length, `k`
classes, `d` width, `p` prompt depth, `l` layers, `c` feature channels.

The annotations cost nothing at run time; the tests check them by an import hook.
"""

from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, Key, Num, Shaped, UInt, UInt8

Params = Mapping[str, Any]
Constants = Mapping[str, Any]  # what a loss reads beside them: frozen, in no checkpoint
Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]

# The label of pixels that carry no ground truth.
VOID = 255
# The label that a model gives to pixels, masks and proposals of no name.
NO_LABEL = -1

__all__ = [
  'NO_LABEL',
  'VOID',
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
]
