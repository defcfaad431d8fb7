/** The metrics and labels that a PromQL expression uses. */
export interface Asked {
  /** Names of metrics, each with the labels that its selectors match. */
  readonly metrics: ReadonlyArray<{ readonly name: string; readonly labels: readonly string[] }>
  /** Labels that results are grouped or joined by. */
  readonly grouping: readonly string[]
}

const KEYWORDS = new Set(['and', 'or', 'unless', 'bool', 'by', 'without', 'on', 'ignoring', 'Inf', 'NaN'])

/**
 * Reads an expression without a grammar: every word that is no function, keyword, label, number or
 * text is a metric.
 */
export function askedBy(expression: string): Asked {
  const bare = expression.replaceAll(/"[^"]*"|'[^']*'/g, '""').replaceAll(/\[[^\]]*\]|\boffset\s+\w+/g, '')
  const grouping = [
    ...bare.matchAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g),
  ].flatMap((match) => words(match[1] ?? ''))
  const rest = bare.replaceAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, ' ')
  const metrics = [...rest.matchAll(/([A-Za-z_:][\w:]*)\s*(\(|\{[^}]*\})?/g)].flatMap(
    ([, name = '', suffix = '']) => {
      if (suffix === '(' || KEYWORDS.has(name)) return []
      return [
        { name, labels: [...suffix.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map((match) => match[1] ?? '') },
      ]
    },
  )
  return { metrics, grouping }
}

function words(text: string): string[] {
  return text
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '')
}

/** One line of a service's answer at `/metrics`. */
export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Exposition {
  /** By name of the metric. */
  readonly types: ReadonlyMap<string, string>
  readonly samples: readonly Sample[]
}

/** Reads Prometheus' text format. */
export function parseExposition(text: string): Exposition {
  const types = new Map(
    [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map((match) => [match[1] ?? '', match[2] ?? '']),
  )
  const samples = [...text.matchAll(/^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/gm)].map(
    ([, name = '', labels = '', value = '']) => ({
      name,
      labels: Object.fromEntries(
        [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((match) => [match[1] ?? '', match[2] ?? '']),
      ),
      value: value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value),
    }),
  )
  return { types, samples }
}
