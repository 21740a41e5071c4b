"""How pictures are segmented, and what does not go together."""

import dataclasses

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.inference.encode import MODES
from ovs_jax.ops.ensemble import CLASSIFIERS
from ovs_jax.text.templates import sentences


@dataclasses.dataclass(frozen=True)
class Settings:
  """How pictures are segmented unless a call says otherwise.

  Attributes:
    shortest: the picture's shorter side for the network, in pixels.
    longest: limit of its longer side.
    templates: name of a set in `text.templates`.
    classifier: whose word counts: 'proposer', 'clip', or 'ensemble' of both.
    weight: of CLIP in the ensemble, 0..1.
    mode: what CLIP sees: 'exact', 'filtered', 'one_pass' or 'pooled'
      (`inference.encode.MODES` explains them).
    classifier_asked: whether a user chose the classifier, and not the checkpoint.
  """

  shortest: int
  longest: int
  templates: str
  classifier: str
  weight: float
  mode: str = 'exact'
  classifier_asked: bool = dataclasses.field(default=False, compare=False)

  def __post_init__(self) -> None:
    lookup({name: name for name in MODES}, self.mode, 'mode')
    check_method(self.classifier, self.weight)
    sentences(self.templates)
    if not 1 <= self.shortest <= self.longest:
      raise UserError(
        'the sides must be 1 <= shortest <= longest, got shortest '
        f'{self.shortest} and longest {self.longest}'
      )


def check_method(classifier: str, weight: float) -> None:
  """Raises ValueError for an unknown classifier or a weight out of range."""
  lookup({name: name for name in CLASSIFIERS}, classifier, 'classifier')
  if not 0 <= weight <= 1:
    raise UserError(f'the ensemble weight must lie in 0..1, got {weight}')


def check_window(window: int | None, overlap: float) -> None:
  """Raises ValueError for windows that cannot be."""
  if window is not None and window < 32:
    raise UserError(f'windows must have at least 32 pixels a side, got {window}')
  if not 0 <= overlap <= 0.5:
    raise UserError(f'the overlap must be a share in 0..0.5, got {overlap}')


def check_asked(windows: bool, mode: str, rule: str, panoptic: bool) -> None:
  """Raises ValueError for what does not go together."""
  if rule == 'each':
    raise UserError(
      "the rule 'each' names masks that are given; encode the image with masks=, or "
      "take rule='pixels'"
    )
  if windows and (rule == 'demo' or panoptic):
    what = "the rule 'demo'" if rule == 'demo' else 'a panoptic result'
    raise UserError(f'{what} needs a whole picture; encode it without windows')
  if mode == 'filtered' and rule == 'demo':
    raise UserError(
      "the rule 'demo' chooses proposals itself; take it in the mode 'exact'"
    )
