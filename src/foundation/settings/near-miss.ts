import { SECRET_NAMES, SETTING_NAMES } from './definitions.ts'

/** Maximum edits between two names that count as a typing error. */
const MAX_EDITS = 2

/**
 * Returns names that resemble a setting but are none, because a silently ignored setting is worse
 * than an error. Other names belong to other programs and pass.
 */
export function nearMisses(names: readonly string[]): Array<{ name: string; meant: string }> {
  const known = new Set<string>([...SETTING_NAMES, ...[...SECRET_NAMES].map((name) => `${name}_FILE`)])
  return names.flatMap((name) => {
    if (known.has(name)) return []
    const meant = [...known].find((candidate) => editDistance(normal(name), normal(candidate)) <= MAX_EDITS)
    return meant === undefined ? [] : [{ name, meant }]
  })
}

function normal(name: string): string {
  return name.toUpperCase().replaceAll('-', '_')
}

function editDistance(left: string, right: string): number {
  if (Math.abs(left.length - right.length) > MAX_EDITS) return MAX_EDITS + 1
  let row = Array.from({ length: right.length + 1 }, (_, index) => index)
  for (const [i, leftChar] of [...left].entries()) {
    const next = [i + 1]
    for (const [j, rightChar] of [...right].entries()) {
      next.push(
        Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (leftChar === rightChar ? 0 : 1)),
      )
    }
    row = next
  }
  return row[right.length] ?? 0
}
