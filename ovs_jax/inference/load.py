"""From a checkpoint to what segments pictures with the model that it holds."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path
from ovs_jax.core.lookup import lookup
from ovs_jax.inference.clipseg import PROMPT, ClipSegSystem
from ovs_jax.inference.coseg import CoSegSystem
from ovs_jax.inference.coseg_no_training import SELECT, LabelStage
from ovs_jax.inference.coseg_views import VIEWS
from ovs_jax.inference.encode import MODES
from ovs_jax.inference.given_masks import clip_alone
from ovs_jax.inference.grid import PROPOSE, GridSystem
from ovs_jax.inference.named import located
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.parts import add_clips
from ovs_jax.inference.settings import Settings
from ovs_jax.inference.system import System, check_options, options_of
from ovs_jax.models.mask_prompts import add_to_ovseg
from ovs_jax.models.maskformer import PRESETS, MaskFormerConfig
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.models.reduced import WEIGHTS, rounded
from ovs_jax.models.stored import Checkpoint, describes, load
from ovs_jax.ops.regions import RegionConfig
from ovs_jax.settings import Region, Test


def load_system(
  directory: Path, *, kinds: Sequence[str] | None = None, **options: Any
) -> System:
  """Reads a model that segments.

  Args:
    directory: a model directory, or a run, of which the newest step is taken; or a
      name (see `inference.named`).
    kinds: of models that will do; None takes all of `SYSTEMS`.
    options: those of `Segmenter.load`; of a CLIPSeg also `select`, the sentences around
      names for the choice of labels; of a CoSeg `view`, one of `coseg_views.VIEWS`.

  Raises:
    FileNotFoundError: there is no such directory.
    ValueError: it holds another model, or options that do not go with it.
  """
  found = load(located(directory), kinds=tuple(SYSTEMS if kinds is None else kinds))
  make = SYSTEMS[found.kind].make
  check_options(found.kind, options_of(make), options)
  return make(found, **options)


def _ovseg(
  found: Checkpoint,
  *,
  prompts: Path | None = None,
  clips: Sequence[Path] = (),
  clip_weights: Sequence[float] = (),
  mode: str = MODES[0],
  dtype: str | None = None,
  weights: str = WEIGHTS[0],
  text_cache: Path | None = None,
  templates: str | Sequence[str] | None = None,
  classifier: str | None = None,
  weight: float | None = None,
  shortest: int | None = None,
  longest: int | None = None,
  propose: str = PROPOSE[0],
) -> OvSegSystem:
  lookup(dict.fromkeys(PROPOSE), propose, 'propose')
  given = {
    'templates': templates,
    'classifier': classifier,
    'weight': weight,
    'shortest': shortest,
    'longest': longest,
  }
  with describes(found.directory, found.kind):
    own = {**found.stored['test'], **found.stored}
    settings = {key: own[key] if x is None else x for key, x in given.items()}
  config, params = add_to_ovseg(found.config, found.params, prompts)
  further = [located(directory) for directory in clips]
  config, params = add_clips(config, params, further, clip_weights)
  params = rounded(params, weights)
  if propose == 'grid':
    clip_alone(classifier, weight, False, mode)
    settings |= {'classifier': 'clip', 'weight': 1.0}
    del params['proposer']
  return (OvSegSystem if propose != 'grid' else GridSystem)(
    config,
    params,
    settings=Settings(**settings, mode=mode, classifier_asked=classifier is not None),
    text_cache=text_cache,
    dtype=dtype,
    panoptic=bool(found.stored.get('panoptic')),  # our recipes never write it
  )


def _clip(
  found: Checkpoint,
  *,
  templates: str | Sequence[str] = 'vild',
  text_cache: Path | None = None,
  dtype: str | None = None,
  shortest: int | None = None,
  longest: int | None = None,
) -> GridSystem:
  """Returns a CLIP that segments by itself, with what OVSeg's configurations say."""
  clip = found.config
  shortest = 3 * clip.image_size if shortest is None else shortest
  config = OvSegConfig(
    proposer=MaskFormerConfig(**{**vars(PRESETS['tiny']), 'embed_dim': clip.embed_dim}),
    clip=clip,
    region=RegionConfig(size=clip.image_size, **vars(Region())),
    chunk=Test().chunk,
  )
  settings = Settings(
    shortest, longest or 4 * shortest, templates, classifier='clip', weight=1.0
  )
  return GridSystem(
    config,
    {'clip': found.params},
    settings=settings,
    text_cache=text_cache,
    dtype=dtype,
  )


def _coseg(
  found: Checkpoint,
  *,
  templates: str | Sequence[str] | None = None,
  text_cache: Path | None = None,
  keep_aspect: bool = False,
  view: str | None = None,
) -> CoSegSystem:
  view = view or ('pad' if keep_aspect else VIEWS[0])
  with describes(found.directory, found.kind):
    own = (found.stored['template'],)
  return CoSegSystem(
    found.config,
    found.params,
    templates=own if templates is None else templates,
    text_cache=text_cache,
    view=view,
  )


def _clipseg(
  found: Checkpoint,
  *,
  labels: int = 0,
  label_clip: Path | None = None,
  templates: str | Sequence[str] | None = None,
  select: tuple[str, ...] = SELECT,
  keep_aspect: bool = False,
  text_cache: Path | None = None,
) -> ClipSegSystem:
  """Returns CLIPSeg; with a number of `labels`, CoSeg without training."""
  if label_clip is not None and not labels:
    raise UserError('a CLIP that chooses labels needs their number, such as labels=20')
  stage = None
  if labels:
    config, params = found.config.clip, found.params['clip']
    if label_clip is not None:
      chooser = load(located(label_clip), kinds=('clip',), what='CLIP checkpoint')
      config, params = chooser.config, chooser.params
    stage = LabelStage(config, params, templates=select, text_cache=text_cache)
  return ClipSegSystem(
    found.config,
    found.params,
    templates=PROMPT if templates is None else templates,
    stage=stage,
    labels=labels,
    keep_aspect=keep_aspect,
  )


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of model that segments.

  Attributes:
    system: its class, a `System`.
    make: from a checkpoint and the options of `Segmenter.load` that it takes.
  """

  system: Any
  make: Callable[..., System]


# By `config['model']` of a checkpoint.
SYSTEMS: dict[str, Kind] = {
  'ovseg': Kind(OvSegSystem, _ovseg),
  'clipseg': Kind(ClipSegSystem, _clipseg),
  'coseg': Kind(CoSegSystem, _coseg),
  'clip': Kind(GridSystem, _clip),
}
