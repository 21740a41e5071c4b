"""Layer 3: foreign checkpoints to ours and back.

`python -m ovs_jax.convert` is the command. Another family of checkpoints is one file
and one line in `SOURCES`.
"""

from ovs_jax.convert import (
  backbone_families,
  clip,
  clipseg,
  hf_clip,
  hf_maskformer,
  hf_siglip,
  hf_tips,
  ovseg,
)
from ovs_jax.convert.family import Family

SOURCES: dict[str, Family] = {
  'openai': clip.OPENAI,
  'open_clip': clip.OPEN_CLIP,
  'ovseg_clip': clip.OVSEG_CLIP,
  'ovseg': ovseg.OVSEG,
  'hf_clip': hf_clip.HF_CLIP,
  'hf_siglip': hf_siglip.HF_SIGLIP,
  'hf_tips': hf_tips.HF_TIPS,
  'hf_clipseg': clipseg.HF_CLIPSEG,
  'clipseg': clipseg.CLIPSEG,
  'swin': backbone_families.SWIN,
  'hf_swin': backbone_families.HF_SWIN,
  'resnet': backbone_families.RESNET,
  'hf_resnet': backbone_families.HF_RESNET,
  'hf_maskformer': hf_maskformer.HF_MASKFORMER,
}
