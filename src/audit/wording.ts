/** The noun for so many, without the number: `1` row, `2` rows. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return count === 1 ? one : many
}
