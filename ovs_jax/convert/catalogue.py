"""Published checkpoints: what they are, their licences and where they are."""

import dataclasses

from ovs_jax.core.lookup import lookup

_OPENAI = 'https://openaipublic.azureedge.net/clip/models'
_HUB = 'https://huggingface.co'
_OVSEG = 'https://github.com/facebookresearch/ov-seg'
_SWIN = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0'
_DETECTRON = 'https://dl.fbaipublicfiles.com/detectron2'
_SEE_PAGE = 'see its page'


@dataclasses.dataclass(frozen=True)
class Published:
  """One checkpoint.

  Attributes:
    family: name in `SOURCES`.
    licence: of the weights, as its publisher states it.
    place: the file itself, or the page that leads to it.
    sha256: of the file, where its publisher states it.
    file: name of the file; empty if `place` is a page, so that people have to go.
  """

  family: str
  licence: str
  place: str
  sha256: str | None = None
  file: str = ''


def _openai(file: str, sha256: str) -> Published:
  """OpenAI's addresses contain the hash of what is there."""
  return Published('openai', 'MIT', f'{_OPENAI}/{sha256}/{file}', sha256, file)


PUBLISHED: dict[str, Published] = {
  'ViT-B/32': _openai(
    'ViT-B-32.pt', '40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af'
  ),
  'ViT-B/16': _openai(
    'ViT-B-16.pt', '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f'
  ),
  'ViT-L/14': _openai(
    'ViT-L-14.pt', 'b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836'
  ),
  'ViT-L/14@336px': _openai(
    'ViT-L-14-336px.pt',
    '3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02',
  ),
  'clip-vit-base-patch32': Published(
    'hf_clip', "OpenAI's, MIT", f'{_HUB}/openai/clip-vit-base-patch32'
  ),
  'clip-vit-base-patch16': Published(
    'hf_clip', "OpenAI's, MIT", f'{_HUB}/openai/clip-vit-base-patch16'
  ),
  'clip-vit-large-patch14': Published(
    'hf_clip', "OpenAI's, MIT", f'{_HUB}/openai/clip-vit-large-patch14'
  ),
  'clip-vit-large-patch14-336': Published(
    'hf_clip', "OpenAI's, MIT", f'{_HUB}/openai/clip-vit-large-patch14-336'
  ),
  'laion2b_s34b_b79k (ViT-B-32)': Published(
    'open_clip', 'MIT', f'{_HUB}/laion/CLIP-ViT-B-32-laion2B-s34B-b79K'
  ),
  'laion2b_s34b_b88k (ViT-B-16)': Published(
    'open_clip', 'MIT', f'{_HUB}/laion/CLIP-ViT-B-16-laion2B-s34B-b88K'
  ),
  'laion2b_s32b_b82k (ViT-L-14)': Published(
    'open_clip', 'MIT', f'{_HUB}/laion/CLIP-ViT-L-14-laion2B-s32B-b82K'
  ),
  'laion2b_s32b_b79k (ViT-H-14)': Published(
    'open_clip', 'MIT', f'{_HUB}/laion/CLIP-ViT-H-14-laion2B-s32B-b79K'
  ),
  'ovseg_clip (ViT-L/14)': Published('ovseg_clip', 'CC-BY-NC 4.0', _OVSEG),
  'ovseg_clip (ViT-B/16)': Published('ovseg_clip', 'CC-BY-NC 4.0', _OVSEG),
  'ovseg (Swin-B, ViT-L/14)': Published('ovseg', 'CC-BY-NC 4.0', _OVSEG),
  'ovseg (R101c, ViT-B/16)': Published('ovseg', 'CC-BY-NC 4.0', _OVSEG),
  'swin_base_patch4_window12_384_22k': Published(
    'swin', 'MIT', f'{_SWIN}/swin_base_patch4_window12_384_22k.pth'
  ),
  'swin_tiny_patch4_window7_224': Published(
    'swin', 'MIT', f'{_SWIN}/swin_tiny_patch4_window7_224.pth'
  ),
  'swin-base-patch4-window12-384-in22k': Published(
    'hf_swin', 'Apache-2.0', f'{_HUB}/microsoft/swin-base-patch4-window12-384-in22k'
  ),
  'R-103': Published('resnet', _SEE_PAGE, f'{_DETECTRON}/DeepLab/R-103.pkl'),
  'resnet-50': Published('hf_resnet', 'Apache-2.0', f'{_HUB}/microsoft/resnet-50'),
  'maskformer-swin-base-ade': Published(
    'hf_maskformer', _SEE_PAGE, f'{_HUB}/facebook/maskformer-swin-base-ade'
  ),
  'maskformer-swin-base-coco': Published(
    'hf_maskformer', _SEE_PAGE, f'{_HUB}/facebook/maskformer-swin-base-coco'
  ),
  'maskformer-resnet50-ade': Published(
    'hf_maskformer', _SEE_PAGE, f'{_HUB}/facebook/maskformer-resnet50-ade'
  ),
}


def find(name: str) -> Published:
  """Returns the entry of a checkpoint that can be downloaded.

  Raises:
    ValueError: the name is not known, or only a page is.
  """
  item = lookup(PUBLISHED, name, 'checkpoint')
  if not item.file:
    raise ValueError(
      f'{name} is not fetched from here; get it at {item.place} (licence: '
      f'{item.licence}) and convert it with --source={item.family} --input=PATH'
    )
  return item


def table() -> str:
  """Returns all checkpoints as lines of text."""
  lines = []
  for name, item in PUBLISHED.items():
    lines += [
      name,
      f'  family   {item.family}',
      f'  licence  {item.licence}',
      f'  sha256   {item.sha256 or "not published"}',
      f'  {"--download=" + name if item.file else "by hand"} from {item.place}',
    ]
  return '\n'.join(lines)
