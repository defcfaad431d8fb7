const KEYWORDS = new Set(['and', 'or', 'unless', 'bool', 'by', 'without', 'on', 'ignoring', 'Inf', 'NaN'])

/**
 * The metrics that a PromQL expression uses, each with the labels that its selectors match, and the
 * labels that results are grouped or joined by. It has no grammar: every word that is no function,
 * keyword, label, number or text is a metric.
 */
export function askedBy(expression: string) {
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

export type Exposition = ReturnType<typeof parseExposition>

/** Reads Prometheus' text format: types by the name of the metric, and a sample per line. */
export function parseExposition(text: string) {
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
