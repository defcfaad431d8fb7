/** Generates the tables of kinds in `docs/faults.md` from the table of faults. */
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { FAULTS } from '../src/sandbox/simulator/faults/fault-kinds.ts'

const PAGE = join(resolve(import.meta.dirname, '..'), 'docs/faults.md')

function markerOf(fields: object): string {
  if ('path' in fields) return 'R'
  if ('stream' in fields && 'count' in fields) return 'F'
  return 'forMs' in fields ? 'T' : ''
}

function tableOf(group: string): string {
  const rows = FAULTS.options.flatMap(({ shape, meta }) => {
    const about = meta()
    return about?.['group'] === group
      ? [[`\`${[...shape.kind.values].join()}\``, markerOf(shape), String(about['about'])]]
      : []
  })
  const lines = [['kind', '', 'what happens, and its own fields'], ...rows]
  const widths = [0, 1, 2].map((column) => Math.max(3, ...lines.map((cells) => cells[column]?.length ?? 0)))
  const line = (cells: readonly string[], fill = ' ') =>
    `| ${widths.map((width, column) => (cells[column] ?? '').padEnd(width, fill)).join(' | ')} |\n`
  const [head = [], ...body] = lines
  return line(head) + line([], '-') + body.map((cells) => line(cells)).join('')
}

/** The page with the table of each heading that has kinds. */
export function faultsPage(): string {
  return readFileSync(PAGE, 'utf8').replace(
    /(## (\w+)\n\n)\| kind .*\n(?:\|.*\n)+/g,
    (_, heading: string, group: string) => `${heading}${tableOf(group)}`,
  )
}
