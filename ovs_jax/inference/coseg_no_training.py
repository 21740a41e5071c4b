"""CoSeg's label stage without training (section 3.3): CLIP chooses an image's labels.

CLIPSeg then segments each of them (`inference.clipseg`).
"""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.files import Path
from ovs_jax.core.images import central_square
from ovs_jax.core.types import Array, Float, Params, UInt8
from ovs_jax.inference.names import NameEmbedder
from ovs_jax.models.clip import ClipConfig, unit
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.ops import regions

LABELS = 20  # k, two standard deviations of the classes per image (figure 6)
SELECT = ('a photo of {}',)  # section 3.6: no article, no full stop


class LabelStage:
  """A CLIP that says which names fit a whole picture."""

  def __init__(
    self,
    config: ClipConfig,
    params: Params,
    *,
    templates: tuple[str, ...] = SELECT,
    text_cache: Path | None = None,
  ) -> None:
    """Keeps the parameters, which may be those of a CLIPSeg's CLIP.

    Args:
      config: of the CLIP whose `params` are given.
      params: the whole CLIP's parameters.
      templates: sentences that names are put into.
      text_cache: folder of embedded names, 'off', or None for the default one.
    """
    self.config = config
    self.templates = templates
    self.embedder = NameEmbedder(config, params, cache=text_cache)
    self._params = params

  def on(self, device: jax.Device) -> 'LabelStage':
    """Returns the same with its parameters on a device, where it then works."""
    other = copy.copy(self)
    other._params = jax.device_put(self._params, device)
    return other

  def embed_image(self, image: UInt8[np.ndarray, 'h w 3']) -> Float[np.ndarray, 'd']:
    """Returns the L2-normalised embedding of the picture's centre."""
    view = central_square(image, self.config.image_size)
    return np.asarray(_embed(self.config, self._params, jnp.asarray(view[None])))[0]


@functools.partial(jax.jit, static_argnums=0)
def _embed(
  config: ClipConfig, params: Params, image: UInt8[Array, 'b s s 3']
) -> Float[Array, 'b d']:
  pixels = regions.normalise(image)
  return unit(encode_images(config, params, pixels))
