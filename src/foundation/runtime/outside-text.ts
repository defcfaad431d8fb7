/** Maximum characters of an external text in the ledger, a dead letter's reason or a log line. */
export const OUTSIDE_TEXT_MAX = 200

/**
 * Returns an external text (of the exchange, Kafka or the database) as one line of at most `max`
 * characters that every column, message and log line accepts: without control or format characters
 * and without half a surrogate pair. Call it where such a text enters.
 */
export function outsideText(text: string, max = OUTSIDE_TEXT_MAX): string {
  const line = text
    .replaceAll(/[\s\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .toWellFormed()
  if (line.length <= max) return line
  const kept = line.slice(0, max - 1)
  // The cut may split a surrogate pair.
  return `${kept.isWellFormed() ? kept : kept.slice(0, -1)}…`
}

/** Parses a text from outside; undefined if it is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
