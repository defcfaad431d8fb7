/** Renders `docs/commands.md` from the help texts. */
import type { Command } from 'commander'
import { placesOf } from '../src/cli/completion.ts'
import { createProgram } from '../src/cli/program.ts'

const WIDTH = 110

const HEAD = `# Commands

The \`--help\` text of each command. In a clone the program is called \`bin/tapeline\`, in an installed package \`tapeline\`. Settings come from the environment and from the file \`.env\`:
[settings](settings.md). Exit codes: 0 done, 1 failed or found something, 2 wrong command, option or setting. With \`LOG_LEVEL=debug\` an error shows its stack.
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

export async function commandsPage(): Promise<string> {
  const sections = placesOf(await createProgram()).map(
    ({ path, command }) =>
      `## ${path.length === 0 ? 'tapeline' : path.join(' ')}\n\n\`\`\`text\n${helpOf(command)}\n\`\`\`\n`,
  )
  return `${HEAD}\n${sections.join('\n')}`
}
