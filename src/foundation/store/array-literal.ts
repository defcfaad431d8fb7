/*
 * PostgreSQL array literals, one per column, for `unnest`. Written by hand because the values are
 * validated: numbers, decimals and booleans need no quoting, and symbols contain only letters,
 * digits and underscores.
 */

/**
 * Returns `{1,2,NULL}` for numbers, decimals as text, and `t`/`f`, from the elements `[from, to)`.
 */
export function bareArray(
  values: ReadonlyArray<string | number | null>,
  from = 0,
  to = values.length,
): string {
  let text = '{'
  for (let i = from; i < to; i++) text += (i === from ? '' : ',') + (values[i] ?? 'NULL')
  return `${text}}`
}

/**
 * Returns `{"BTCUSDT","NULL"}` for words without quotes or backslashes; quoted, so that NULL
 * remains a word.
 */
export function wordArray(values: readonly string[], from = 0, to = values.length): string {
  return from >= to ? '{}' : `{"${values.slice(from, to).join('","')}"}`
}
