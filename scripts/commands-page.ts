/**
 * Generates `docs/commands.md` from the help texts. `scripts/with-node scripts/commands-page.ts`
 * writes it, `npm run check` compares it.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { placesOf } from '../src/cli/completion-script.ts'
import { createProgram } from '../src/cli/program.ts'

const PAGE = join(resolve(import.meta.dirname, '..'), 'docs/commands.md')
const WIDTH = 110

const HEAD = `# Commands

The \`--help\` text of each command. In a clone the program is called \`bin/tapeline\`, in an installed package \`tapeline\`. Settings come from the environment and from the file \`.env\`:
[.env.example](../.env.example). Exit codes: 0 done, 1 failed or found something, 2 wrong command, option or setting. With \`LOG_LEVEL=debug\` an error shows its stack.
`

function helpOf(command: Command): string {
  let text = ''
  command.configureOutput({
    writeOut: (part) => {
      text += part
    },
    getOutHelpWidth: () => WIDTH,
    getOutHasColors: () => false,
  })
  command.outputHelp()
  return text.trim()
}

export function commandsPage(): string {
  const sections = placesOf(createProgram()).map(
    ({ path, command }) =>
      `## ${path.length === 0 ? 'tapeline' : path.join(' ')}\n\n\`\`\`text\n${helpOf(command)}\n\`\`\`\n`,
  )
  return `${HEAD}\n${sections.join('\n')}`
}

export function isCommandsPageCurrent(): boolean {
  const isCurrent = readFileSync(PAGE, 'utf8') === commandsPage()
  if (!isCurrent) console.log('Run: scripts/with-node scripts/commands-page.ts')
  return isCurrent
}

if (import.meta.main) writeFileSync(PAGE, commandsPage())
