"""The masks that a label map stands for."""

from ovs_jax.core.types import Array, Bool, Int, UInt


def target_masks(
  label: UInt[Array, 'b h w'], ids: Int[Array, 'b t'], valid: Bool[Array, 'b t']
) -> Bool[Array, 'b t h w']:
  """Returns the binary mask of each target.

  Made on the device: on the way there a label map is a hundredth of forty masks.

  Args:
    label: label maps, of 8 or 16 bits.
    ids: the label of each target.
    valid: which targets are real; the masks of the others are empty.
  """
  ids = ids.astype(label.dtype)[:, :, None, None]
  return (label[:, None] == ids) & valid[:, :, None, None]
