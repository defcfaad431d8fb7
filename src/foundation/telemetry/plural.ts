/** `1234567` → `1,234,567`. */
export function countText(count: number): string {
  return Math.round(count).toLocaleString('en-US')
}

/** Returns the noun for a count, without the number: `row` for 1, `rows` for 2. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return count === 1 ? one : many
}

/** Returns a count with its noun: `1 restart`, `2 restarts`. */
export function plural(count: number, noun: string): string {
  return `${countText(count)} ${counted(count, noun)}`
}
