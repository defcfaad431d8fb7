import { type Spread, type Summary, spreadOf } from './summary.ts'

/**
 * Renders a Markdown table for each stage; with a second pipeline, both and the ratio of each pair
 * of runs.
 */
export function renderReport(
  ours: Summary,
  peer: Summary | null,
  ratios: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>,
): string {
  return Object.entries(ours)
    .map(([stage, figures]) => {
      const other = peer?.[stage]
      const header =
        other === undefined
          ? '| figure | tapeline |\n|---|---|'
          : '| figure | tapeline | peer | tapeline / peer |\n|---|---|---|---|'
      const rows = Object.entries(figures).map(([name, spread]) => {
        if (other === undefined) return `| ${name} | ${show(spread)} |`
        const theirs = other[name]
        const ratio = ratios[stage]?.[name] ?? []
        return `| ${name} | ${show(spread)} | ${theirs === undefined ? '' : show(theirs)} | ${ratio.length === 0 ? '' : show(spreadOf(ratio))} |`
      })
      return `### ${stage}\n\n${header}\n${rows.join('\n')}\n`
    })
    .join('\n')
}

/** Formats `median (smallest–largest)`. */
function show({ median, min, max }: Spread): string {
  return min === max ? number(median) : `${number(median)} (${number(min)}–${number(max)})`
}

function number(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US')
  if (Math.abs(value) >= 100) return value.toFixed(0)
  return value.toFixed(Math.abs(value) >= 10 ? 1 : 2)
}
