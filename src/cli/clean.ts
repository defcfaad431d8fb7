import { createInterface } from 'node:readline/promises'
import { Command } from 'commander'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { bytesText } from '../sandbox/up/display/text-style.ts'
import { listKeptData, refuseHeld, removeKeptData } from '../sandbox/up/kept-data.ts'

/** `tapeline clean`: removes the data of `up` on this machine, after confirmation. */
export function cleanCommand(): Command {
  return new Command('clean')
    .description('remove the data of `up` on this machine, after confirmation')
    .option('--yes', 'remove without confirmation')
    .addHelpText('after', HELP)
    .action(async ({ yes }: { yes?: true }) => {
      const { DATA_DIR } = loadSettings(process.env, { cwd: process.cwd() })
      const kept = await listKeptData(DATA_DIR)
      if (kept.length === 0) {
        console.log(`There is nothing in ${DATA_DIR}.`)
        return
      }
      console.log(`In ${DATA_DIR}:`)
      for (const { name, bytes } of kept) console.log(`  ${bytesText(bytes).padStart(9)}  ${name}`)
      refuseHeld(kept)
      if (yes !== true && !(await confirmed())) {
        console.log('Nothing was removed.')
        return
      }
      for (const one of kept) await removeKeptData(one)
      console.log('Removed.')
    })
}

const HELP = `
It removes everything: the data of each source and the downloaded Kafka, which the next start downloads again.

Examples:
  bin/tapeline clean
  bin/tapeline clean --yes`

async function confirmed(): Promise<boolean> {
  if (!process.stdin.isTTY) {
    throw new TapelineError('INPUT', 'There is no terminal for the confirmation', {
      fix: 'Add --yes to remove everything without confirmation.',
    })
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  try {
    return /^y(es)?$/i.test((await terminal.question('Remove all of it? [y/N] ')).trim())
  } finally {
    terminal.close()
  }
}
