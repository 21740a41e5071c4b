// What is typed, read as `predict` reads --names: commas between names, and double quotes
// around a name that has one.

// Returns the names; clean: makes one text of those that CLIP reads alike.
export function parsedNames(text, clean) {
  const line = text.trim().split(/\s+/u).join(' ');
  if (!line) throw new Error('Type what to look for, such as: red ball, grass');
  const found = separated(line).map((name) => name.trim());
  const blank = found.indexOf('');
  if (blank >= 0) {
    throw new Error(
      `Name ${blank + 1} of ${found.length} is blank; remove it, or the comma too many.`,
    );
  }
  const first = new Map();
  for (const name of found) {
    const key = clean(name);
    if (first.has(key)) {
      throw new Error(`"${first.get(key)}" and "${name}" are the same for CLIP; keep one.`);
    }
    first.set(key, name);
  }
  return found;
}

// Splits a line of comma-separated values, in which "" within quotes is one of them.
function separated(line) {
  const part = /\s*(?:"((?:[^"]|"")*)"(?=,|$)|([^",\s][^,]*|))(?:,|$)/uy;
  const found = [];
  for (let more = true; more; ) {
    const match = part.exec(line);
    if (!match) {
      throw new Error(
        'The quotes do not match; a name with a comma stands in a pair of double quotes, ' +
          'with a comma after it.',
      );
    }
    found.push(match[1] === undefined ? match[2] : match[1].replaceAll('""', '"'));
    more = match[0].endsWith(',') && !(part.lastIndex === 0);
  }
  return found;
}
