"""What an OVSeg is made of, and how its authors evaluated it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path
from ovs_jax.core.lookup import lookup
from ovs_jax.models.clip_config import ClipConfig
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.ops.ensemble import check_weights
from ovs_jax.ops.regions import RegionConfig

DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class Inference:
  """What the authors' configuration files set for the evaluation of a model.

  Attributes:
    threshold: of a mask's probability, above which its pixels are shown to CLIP.
    shortest: side in pixels that images are resized to.
    longest: and what their longer side is at most.
  """

  threshold: float
  shortest: int
  longest: int


# By the kind of the proposer's backbone.
PUBLISHED = {'Swin': Inference(0.4, 640, 2560), 'ResNet': Inference(0.5, 512, 2048)}


@dataclasses.dataclass(frozen=True)
class OvSegConfig:
  """The parts of the model.

  Attributes:
    proposer: sizes of the MaskFormer.
    clip: sizes of CLIP; its prompt depth says whether mask prompts are used.
    region: how proposals become crops; its size is CLIP's.
    chunk: regions that go through CLIP at once.
    others: further CLIPs, whose probabilities of names are averaged with the first's
      (`models.clip_mix`). They see crops of their own size.
    clip_weights: of all CLIPs in that average, the first one's first; what they sum to
      plays no part. (): all count the same.
  """

  proposer: MaskFormerConfig
  clip: ClipConfig
  region: RegionConfig
  chunk: int
  others: tuple[ClipConfig, ...] = ()
  clip_weights: tuple[float, ...] = ()

  def __post_init__(self) -> None:
    check_weights(self.clip_weights, 1 + len(self.others))
    if self.region.size != self.clip.image_size:
      raise UserError(
        f'region.size {self.region.size} must be the clip.image_size '
        f'{self.clip.image_size}'
      )
    if self.proposer.embed_dim != self.clip.embed_dim:
      raise UserError(
        f'proposer.embed_dim {self.proposer.embed_dim} must be the clip.embed_dim '
        f'{self.clip.embed_dim}'
      )

  @classmethod
  def from_dict(cls, config: Mapping[str, Any]) -> 'OvSegConfig':
    """Reads what `to_dict` wrote."""
    return cls(
      proposer=MaskFormerConfig(**config['proposer']),
      clip=ClipConfig.from_dict(config['clip']),
      region=RegionConfig(**config['region']),
      chunk=config['chunk'],
      others=tuple(map(ClipConfig.from_dict, config.get('others', ()))),
      clip_weights=tuple(config.get('clip_weights', ())),
    )

  def to_dict(self) -> dict[str, Any]:
    """Returns nested dicts for a checkpoint."""
    return dataclasses.asdict(self)

  @property
  def clips(self) -> tuple[ClipConfig, ...]:
    """All CLIPs, the one first that the proposer was trained with."""
    return self.clip, *self.others

  @property
  def alone(self) -> tuple['OvSegConfig', ...]:
    """For each CLIP the model that has it alone."""
    return tuple(
      dataclasses.replace(
        self,
        proposer=dataclasses.replace(self.proposer, embed_dim=clip.embed_dim),
        clip=clip,
        region=dataclasses.replace(self.region, size=clip.image_size),
        others=(),
        clip_weights=(),
      )
      for clip in self.clips
    )

  def check_one_clip(self, directory: Path) -> None:
    """Raises ValueError if there are several CLIPs, where the one is needed.

    Args:
      directory: of the checkpoint.
    """
    if self.others:
      raise UserError(
        f'the OVSeg in {directory} has {len(self.clips)} CLIPs, and one is needed '
        'here; name a checkpoint that has one of them'
      )

  def computing_in(self, dtype: str) -> 'OvSegConfig':
    """Returns the configuration with both networks in another precision of `DTYPES`."""
    lookup(dict.fromkeys(DTYPES), dtype, 'dtype')
    return dataclasses.replace(
      self,
      proposer=dataclasses.replace(self.proposer, dtype=dtype),
      clip=dataclasses.replace(self.clip, dtype=dtype),
      others=tuple(dataclasses.replace(clip, dtype=dtype) for clip in self.others),
    )
