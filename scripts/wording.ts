/**
 * Counts the phrases that CONTRIBUTING.md section 8 rules out, per folder, and compares them with
 * `wording-ceilings.json`. A ceiling may only fall. Run as a program, it lowers the ceilings to the
 * present counts; it never raises one.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { trackedFiles } from './tracked-files.ts'

const ROOT = resolve(import.meta.dirname, '..')
const CEILINGS = 'scripts/wording-ceilings.json'

/** Files whose text is not ours. */
const SKIPPED = /^(LICENSE|NOTICE|package-lock\.json|scripts\/wording.*|docs\/images\/.*)$/

const PHRASES: readonly RegExp[] = [
  /\banew\b/gi,
  /\bof (?:its|their) own\b/gi,
  /\bby (?:itself|themselves)\b/gi,
  /\bwhoever\b/gi,
  /\bfor ever\b/gi,
  /\bmend(?:s|ed|ing)?\b/gi,
  /\bbehind\b/gi,
  /\bgo(?:es)? on\b/gi,
  /\b(?:is|are) (?:told|asked|held|looked at)\b/gi,
  // At the start of a sentence, a comment, a list item or a cell.
  /(?:^|[.!?:] |\/\*\* |\* |\/\/ |# |- |\| )(?:What (?:is|are)|Of (?=[a-z]))/gm,
]

/** Counts the banned phrases in a text. */
export function bannedPhrases(text: string): number {
  return PHRASES.reduce((sum, phrase) => sum + [...text.matchAll(phrase)].length, 0)
}

/** Returns `src/<folder>`, another top folder, or `.` for files of the root. */
function folderOf(file: string): string {
  const [top = '', next] = file.split('/')
  if (next === undefined) return '.'
  return top === 'src' && file.split('/').length > 2 ? `src/${next}` : top
}

function countByFolder(): Map<string, number> {
  const counts = new Map<string, number>()
  for (const file of trackedFiles(ROOT)) {
    if (SKIPPED.test(file)) continue
    const folder = folderOf(file)
    counts.set(folder, (counts.get(folder) ?? 0) + bannedPhrases(readFileSync(join(ROOT, file), 'utf8')))
  }
  return counts
}

function readCeilings(): Record<string, number> {
  return JSON.parse(readFileSync(join(ROOT, CEILINGS), 'utf8'))
}

/** @returns whether every folder is at its ceiling; it has printed the others */
export function isWordingWithinCeilings(): boolean {
  const ceilings = readCeilings()
  let passed = true
  for (const [folder, count] of countByFolder()) {
    const ceiling = ceilings[folder] ?? 0
    if (count === ceiling) continue
    passed = false
    console.log(
      count > ceiling
        ? `${folder}: ${count} banned phrases, at most ${ceiling} are allowed. CONTRIBUTING.md section 8 lists them.`
        : `${folder}: ${count} banned phrases, fewer than the recorded ${ceiling}. Run: scripts/with-node scripts/wording.ts`,
    )
  }
  return passed
}

if (import.meta.main) {
  const ceilings = readCeilings()
  const lowered = [...countByFolder()]
    .map(([folder, count]): [string, number] => [folder, Math.min(count, ceilings[folder] ?? 0)])
    .filter(([, count]) => count > 0)
    .sort(([one], [other]) => (one < other ? -1 : 1))
  writeFileSync(join(ROOT, CEILINGS), `${JSON.stringify(Object.fromEntries(lowered), null, 2)}\n`)
}
