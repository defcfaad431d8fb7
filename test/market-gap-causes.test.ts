import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { GAP_CAUSE_NAMES, GAP_CAUSES } from '../src/foundation/market/gap-causes.ts'

test('the specification lists each cause of a gap as the program has it', () => {
  const rows = readFileSync('docs/specification.md', 'utf8')
    .split('\n')
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim())
        .join('|'),
    )
  for (const cause of GAP_CAUSE_NAMES) {
    const [by, hasWindows, meaning] = GAP_CAUSES[cause]
    assert.ok(rows.includes([`\`${cause}\``, by, hasWindows ? 'yes' : 'no', meaning].join('|')), cause)
  }
})
