/** Finds the phrases that CONTRIBUTING.md section 8 rules out. */
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { trackedFiles } from './tracked-files.ts'

const ROOT = resolve(import.meta.dirname, '..')

/** Files whose text is not ours, and this one. */
const SKIPPED = /^(LICENSE|NOTICE|package-lock\.json|scripts\/wording\.ts|docs\/images\/.*)$/

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

/** Lists the banned phrases in the tracked files, as `file:line: phrase`. */
export function bannedPhrases(): string[] {
  return trackedFiles(ROOT)
    .filter((file) => !SKIPPED.test(file))
    .flatMap((file) => {
      const text = readFileSync(join(ROOT, file), 'utf8')
      const lineOf = (index: number) => text.slice(0, index).split('\n').length
      return PHRASES.flatMap((phrase) =>
        [...text.matchAll(phrase)].map((match) => `${file}:${lineOf(match.index)}: ${match[0].trim()}`),
      )
    })
}
