"""Writes tests/goldens/tokenizer.json with the `bpe` backend.

Needs OpenAI's list of merges, see ovs_jax/text/bpe.py:
  python tests/text/make_golden.py
"""

import json
import pathlib

from ovs_jax.text import templates, tokenizer

PATH = pathlib.Path(__file__).parents[1] / 'goldens' / 'tokenizer.json'

NAMES = (
  'grass',
  'red ball',
  'bow-tie',
  'traffic light',
  'toilet, can, commode',
  'sky-other',
  'TV monitor',
  'wall-to-wall carpet',
)

TEXTS = (
  '',
  ' ',
  '!',
  'a',
  'Hello, World!',
  'A PHOTO OF A DOG',
  "it's",
  "IT'S THEY'RE I'VE I'M WE'LL HE'D DON'T",
  "rock'n'roll 'tis o'clock",
  "dogs' bowls and a cat's tail",
  "'s 't 're 've 'm 'll 'd '",
  'it\u2019s a \u201cquoted\u201d sign \u2013 a dash \u2014 and \u2026',
  'a &amp; b',
  'a &amp;amp; b &lt;br&gt; &quot;c&quot;',
  '&eacute;t&eacute; &#233; &#x1F600; &nbsp; &notanentity;',
  '<b>bold</b> <img src="x.png"/>',
  '1234567890',
  '3.14159 1,000,000 50% 10x20 2nd 7/8 -5 +3 #1',
  'route66 b2b h2o mp3 4k',
  'tabs\tand\nnew\r\nlines\x0band\x0cfeeds \x1c \x85 \u2003 \u3000 end',
  '  leading and   inner   spaces  ',
  'snake_case CamelCase kebab-case dot.case UPPER_SNAKE',
  'https://example.org/a/b?c=d&e=f#g user@example.org',
  '(brackets) [square] {curly} <angle> |pipes| \\slashes/ `ticks` ~tilde^caret',
  '!!! ??? ... --- === *** ### $$$ %%% &&& @@@ :) :-( ;-) <3 ^_^',
  'caf\u00e9 na\u00efve fa\u00e7ade \u00fcber \u00f1and\u00fa \u00c5ngstr\u00f6m',
  'cafe\u0301 decomposed n\u0303',
  '\u0130stanbul I\u0307 \u0131 stra\u00dfe STRASSE \u1e9e',
  '\ufb01sh and \ufb02ower \u00bd \u2460 \u2122 \uff26\uff35\uff2c\uff2c \uff11\uff12',
  'M\u00c3\u00bcller caf\u00c3\u00a9 \u00e2\u20ac\u0153mojibake\u00e2\u20ac\u009d',
  '\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442',
  '\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u03a3\u0391\u03a3 \u03c3\u03c2',
  '\u4e2d\u6587\u72d7 \u65e5\u672c\u8a9e\u306e\u732b \ud55c\uad6d\uc5b4 \uac1c',
  '\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea',
  '\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22 \u10e5\u10d0\u10e0\u10d7',
  '\u0664\u0665\u0666 \u096a\u096b \u2163 \u00b2 \u00be',
  '\U0001f600 \U0001f602\U0001f602\U0001f602 \u2764\ufe0f \U0001f44d\U0001f3fd',
  '\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea',
  '\u2615 \u00a9 \u00ae',
  'a\u200bzero\u200cwidth\ufeff \u00adsoft\u00adhyphen \u202eright to left',
  '\u20ac5 \u00a33 \u00a54 \u20bf',
  '\u2200x\u2203y \u2211 \u221e \u2260 \u2192 \u25a0 \u266b',
  '\U00010330 \U0001d504 \U00020000 \U000e0041 \ue000 \ufffd \uffff',
  'control \x00 \x01 \x1b[31mred\x1b[0m \x7f \x80 \x9f',
  '<|startoftext|>',
  '<|endoftext|>',
  'a <|endoftext|> b<|startoftext|>c',
  '!<|endoftext|> <|EndOfText|>dog <|end of text|>',
  "'s<|endoftext|>'s it'\u017f <|endoftext|>",
  "long \u017f \u017ft it'\u017f !'\u017f '\u017fa",
  'a\u0345b \u0345 !\u0345? 1\u0345 \u03b1\u0345 \u1fb3',
  'lone \ud800 and \udfff surrogates \ud83d',
  'paired \ud83d\ude00 surrogates',
  'a' * 100,
  'ab ' * 74 + 'end',
  'word ' * 75,
  'word ' * 76,
  'word ' * 200,
  '\u72d7' * 60,
  '!' * 300,
  'pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism',
  'the quick brown fox jumps over the lazy dog and pack my box with five dozen jugs',
  'qwxz zzyzx xqj vvv rrr lll aeiou bcdfg',
)


def main() -> None:
  """Writes one [text, ids] pair a line; ids include start and end, no padding."""
  texts = [*TEXTS]
  texts += [text for row in templates.fill('vild', NAMES) for text in row]
  texts += [row[0] for row in templates.fill('single', NAMES)]
  texts += templates.fill('imagenet', ['acorn squash'])[0]
  rows = tokenizer.tokenize(texts, truncate=True, backend='bpe')
  lines = []
  for text, row in zip(texts, rows.tolist(), strict=True):
    ids = row[: row.index(tokenizer.END_ID, 1) + 1]
    while ids != row and any(row[len(ids) :]):  # an end token inside the text
      ids = row[: row.index(tokenizer.END_ID, len(ids)) + 1]
    lines.append(json.dumps([text, ids]))
  PATH.write_text('[\n' + ',\n'.join(lines) + '\n]\n', encoding='ascii')


if __name__ == '__main__':
  main()
