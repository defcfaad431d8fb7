/** Characters of a text in the ledger, in a dead letter's reason and in a log line that others wrote. */
export const OUTSIDE_TEXT_MAX = 200

/**
 * One line of at most `max` characters of a text from the exchange, Kafka or the database, as every column, message and log line
 * takes it: without control or format characters and without half of a surrogate pair. To be called where such a text enters.
 */
export function outsideText(text: string, max = OUTSIDE_TEXT_MAX): string {
  const line = text
    .replaceAll(/[\s\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .toWellFormed()
  if (line.length <= max) return line
  const kept = line.slice(0, max - 1)
  // The cut may be in the middle of a pair.
  return `${kept.isWellFormed() ? kept : kept.slice(0, -1)}…`
}
