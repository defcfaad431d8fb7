/**
 * Returns the exact text of a member of the outermost object of a valid JSON text; null if there is
 * none. With repeated keys the last one counts, as in `JSON.parse`.
 */
export function memberText(json: string, key: string): string | null {
  let found: string | null = null
  let at = skipSpace(json, 0)
  if (json[at] !== '{') return null
  at = skipSpace(json, at + 1)
  while (json[at] === '"') {
    const keyEnd = endOfString(json, at)
    const name: unknown = JSON.parse(json.slice(at, keyEnd))
    const start = skipSpace(json, skipSpace(json, keyEnd) + 1)
    const end = endOfValue(json, start)
    if (name === key) found = json.slice(start, end)
    at = skipSpace(json, end)
    if (json[at] === ',') at = skipSpace(json, at + 1)
  }
  return found
}

function skipSpace(json: string, from: number): number {
  let at = from
  while (isSpace(json[at])) at++
  return at
}

function isSpace(character: string | undefined): boolean {
  return character === ' ' || character === '\n' || character === '\r' || character === '\t'
}

/** The index after the string that opens at `from`. */
function endOfString(json: string, from: number): number {
  for (let at = from + 1; at < json.length; at++) {
    if (json[at] === '\\') at++
    else if (json[at] === '"') return at + 1
  }
  return json.length
}

/** The index after the value that starts at `from`. */
function endOfValue(json: string, from: number): number {
  let depth = 0
  let at = from
  while (at < json.length) {
    const char = json[at]
    if (char === '"') {
      at = endOfString(json, at)
      if (depth === 0) return at
      continue
    }
    if (depth === 0 && (char === ',' || char === '}' || char === ']')) return trimEnd(json, at)
    if (char === '{' || char === '[') depth++
    if (char === '}' || char === ']') {
      depth--
      if (depth === 0) return at + 1
    }
    at++
  }
  return at
}

function trimEnd(json: string, end: number): number {
  let at = end
  while (isSpace(json[at - 1])) at--
  return at
}
