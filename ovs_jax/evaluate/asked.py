"""What an evaluation asks of an OVSeg: settings of its ensemble, and changes."""

import dataclasses

from ovs_jax.inference.grid import PROPOSE
from ovs_jax.models.reduced import WEIGHTS
from ovs_jax.settings import Settings


@dataclasses.dataclass(frozen=True)
class Setting:
  """How two classifiers become one; see `ops.ensemble.combine`.

  Attributes:
    classifier: of `ops.ensemble.CLASSIFIERS`.
    weight: of CLIP in the ensemble.
    clips: weights of the CLIPs, where there are several; (): the model's own.
  """

  classifier: str
  weight: float
  clips: tuple[float, ...] = ()

  @property
  def name(self) -> str:
    """Such as `ensemble_0.70`, or `ensemble_0.70_clips_0.25_0.75`."""
    name = self.classifier
    if self.classifier == 'ensemble':
      name = f'ensemble_{self.weight:.2f}'
    if not self.clips:
      return name
    return '_'.join([name, 'clips', *(f'{share:.2f}' for share in self.clips)])


BY_CLIP = Setting('clip', 0.0)  # of masks that no proposer made


@dataclasses.dataclass(frozen=True)
class Changes:
  """What is asked of a checkpoint in place of its own settings; '' and 0: nothing.

  Attributes:
    prompts: directory of the mask prompts that its CLIP gets.
    dtype: that the networks see pictures in, of `models.ovseg.DTYPES`.
    templates: see `text.templates`.
    shortest: side that pictures are resized to.
    longest: side that they keep within.
    threshold: from which a mask's pixel is shown to CLIP.
    proposer_side: of the square that the proposer sees, while crops are cut from the
      picture itself.
    no_score: label of a pixel in which no name has a score: 'none', or 'first', as in
      the reference, whose argmax has the first class there.
    refine: radius in pixels by which borders move to those of the picture
      (`ops.guided`).
    propose: what makes the masks, one of `inference.grid.PROPOSE`; those of a grid only
      CLIP can name.
    weights: how they are rounded, one of `models.reduced.WEIGHTS`.
    clips: directories of further CLIPs, whose probabilities are averaged with those of
      its own.
    clip_weights: of all of them; (): the same for all, or the checkpoint's own.
  """

  prompts: str = ''
  dtype: str = ''
  templates: str = ''
  shortest: int = 0
  longest: int = 0
  threshold: float = 0.0
  proposer_side: int = 0
  no_score: str = 'none'
  refine: int = 0
  propose: str = PROPOSE[0]
  weights: str = WEIGHTS[0]
  clips: tuple[str, ...] = ()
  clip_weights: tuple[float, ...] = ()

  @classmethod
  def of(cls, config: Settings) -> 'Changes':
    """Returns those of a configuration."""
    given = {'prompts': config.init}
    given |= dict.fromkeys(('clips', 'clip_weights'), config.test)
    fields = (field.name for field in dataclasses.fields(cls))
    return cls(**{name: getattr(given.get(name, config.eval), name) for name in fields})


NO_CHANGES = Changes()
