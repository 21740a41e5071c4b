// CLIP's tokenizer, step by step what run_parts.py does: texts are repaired as ftfy does
// it character by character, unescaped, lower-cased and merged pair by pair.

// White space as Python has it, which JavaScript's \s is not.
const SPACE = '\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const SPACES = new RegExp(`[${SPACE}]+`, 'gu');
const ENDS = new RegExp(`^[${SPACE}]+|[${SPACE}]+$`, 'gu');
const WORD = /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d/iuy;
const RUN = new RegExp(`\\p{L}+|\\p{N}|[${SPACE}]|[^${SPACE}\\p{L}\\p{N}]+`, 'uy');
const ANSI = /\x1b\[[\p{Nd};]*[a-zA-Z]/gu; // colours of terminals
const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;

export class Tokenizer {
  // about: the content of tokenizer.json.
  constructor(about) {
    const printable = (b) => (b > 0x20 && b < 0x7f) || (b > 0xa0 && b !== 0xad);
    const bytes = Array.from({ length: 256 }, (_, b) => b);
    const order = [...bytes.filter(printable), ...bytes.filter((b) => !printable(b))];
    this.letters = [];
    order.forEach((b, i) => {
      this.letters[b] = String.fromCodePoint(i < 188 ? b : 68 + i);
    });
    const symbols = ['', '</w>'].flatMap((end) => order.map((b) => this.letters[b] + end));
    symbols.push(...about.merges.map((pair) => pair.replace(' ', '')));
    this.ids = new Map(symbols.map((symbol, i) => [symbol, i]));
    this.ranks = new Map(about.merges.map((pair, rank) => [pair, rank]));
    this.special = new Map([['<|startoftext|>', about.start], ['<|endoftext|>', about.end]]);
    this.changed = new Map(Object.entries(about.characters));
    this.entities = new Map(Object.entries(about.entities));
    this.references = new Map(Object.entries(about.references));
    this.about = about;
  }

  // Repairs characters, unescapes, collapses white space and lower-cases.
  clean(text) {
    text = (text.includes('<') ? text : this.unescaped(text)).replace(ANSI, '');
    text = Array.from(text, (c) => this.changed.get(String(c.codePointAt(0))) ?? c).join('');
    text = text.replace(/[\ud800-\udfff]/gu, '\ufffd').normalize('NFC');
    text = this.unescaped(this.unescaped(text));
    return text.replace(ENDS, '').replace(SPACES, ' ').replace(ENDS, '').toLowerCase();
  }

  // Replaces HTML's character references as Python's html.unescape does.
  unescaped(text) {
    return text.replace(REFERENCE, (whole, name) => {
      if (name[0] !== '#') return this.named(name);
      const digits = name.slice(1).replace(';', '');
      const code = /^x/i.test(digits) ? parseInt(digits.slice(1), 16) : parseInt(digits, 10);
      const odd = this.references.get(String(code));
      if (odd !== undefined) return odd;
      const none = code > 0x10ffff || (code >= 0xd800 && code < 0xe000);
      return none ? '\ufffd' : String.fromCodePoint(code);
    });
  }

  named(name) {
    for (let end = name.length; end > 1; end--) {
      const found = this.entities.get(name.slice(0, end));
      if (found !== undefined) return found + name.slice(end);
    }
    return this.entities.get(name) ?? `&${name}`;
  }

  // Returns the ids of a text, with start and end.
  encode(text) {
    const cleaned = this.clean(text).replaceAll('\u0345', ' ');
    const ids = [this.about.start];
    for (let at = 0; at < cleaned.length; ) {
      WORD.lastIndex = RUN.lastIndex = at;
      const [piece] = WORD.exec(cleaned) ?? RUN.exec(cleaned);
      at += piece.length;
      const special = this.special.get(piece);
      if (special === undefined) ids.push(...this.merged(piece));
      else ids.push(special);
    }
    ids.push(this.about.end);
    if (ids.length > this.about.length) {
      throw new Error(
        `"${shortened(text)}" has ${ids.length - 2} tokens; the model reads ` +
          `${this.about.length - 2} at most. Shorten it.`,
      );
    }
    return ids;
  }

  merged(piece) {
    const bytes = new TextEncoder().encode(piece.replace(ENDS, ''));
    const parts = Array.from(bytes, (b) => this.letters[b]);
    if (parts.length) parts[parts.length - 1] += '</w>';
    for (;;) {
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        best = Math.min(best, this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
      }
      if (best === Infinity) return parts.map((part) => this.ids.get(part));
      for (let i = 0; i + 1 < parts.length; i++) {
        if (this.ranks.get(`${parts[i]} ${parts[i + 1]}`) === best) {
          parts.splice(i, 2, parts[i] + parts[i + 1]);
        }
      }
    }
  }
}

function shortened(text) {
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}
