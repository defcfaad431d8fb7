/** Counts by group and name: `rows.add('trade', 'BTCUSDT', 3)`. */
export class Tally {
  readonly #counts = new Map<string, Map<string, number>>()

  add(group: string, name: string, by = 1): void {
    let names = this.#counts.get(group)
    if (names === undefined) {
      names = new Map()
      this.#counts.set(group, names)
    }
    names.set(name, (names.get(name) ?? 0) + by)
  }

  of(group: string): Record<string, number> {
    return Object.fromEntries(this.#counts.get(group) ?? [])
  }

  groups(): Record<string, Record<string, number>> {
    return Object.fromEntries([...this.#counts].map(([group, names]) => [group, Object.fromEntries(names)]))
  }

  entries(): Array<{ readonly group: string; readonly name: string; readonly count: number }> {
    return [...this.#counts].flatMap(([group, names]) =>
      [...names].map(([name, count]) => ({ group, name, count })),
    )
  }
}

/** Counts equal words. */
export function countOf(words: Iterable<string>): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1
  return counts
}
