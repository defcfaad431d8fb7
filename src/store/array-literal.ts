/*
 * PostgreSQL array literals, one a column, for `unnest`. Written by hand because the values are checked before:
 * numbers, decimals and booleans need no quoting, and symbols hold letters, digits and underscores only.
 */

/** `{1,2,NULL}` for numbers, decimals as text, and `t`/`f`. */
export function bareArray(values: ReadonlyArray<string | number | null>): string {
  let text = '{'
  for (let i = 0; i < values.length; i++) text += (i === 0 ? '' : ',') + (values[i] ?? 'NULL')
  return `${text}}`
}

/** `{"BTCUSDT","NULL"}` for words without quotes or backslashes; quoted, so that the word NULL stays a word. */
export function wordArray(values: readonly string[]): string {
  return values.length === 0 ? '{}' : `{"${values.join('","')}"}`
}
