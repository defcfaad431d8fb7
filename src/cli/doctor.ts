import { Command } from 'commander'
import { loadSettings, type Settings } from '../foundation/settings/load.ts'
import { colourStyle, plainStyle } from '../sandbox/up/display/text-style.ts'
import { ownProcesses } from '../sandbox/up/own-processes.ts'
import type { Finding } from '../tools/doctor/finding.ts'

const MARKS: Readonly<Record<Finding['verdict'], string>> = { good: '✓', warning: '!', bad: '✗', none: '–' }
const COLUMN = 28

/** `tapeline doctor`: lists problems of this machine, and the fixes. */
export function doctorCommand(): Command {
  return new Command('doctor')
    .description('find what is missing or misconfigured on this machine, and show the fix; changes nothing')
    .option('--json', 'print the findings as JSON')
    .addHelpText(
      'after',
      `\nIt checks Kafka and the database if KAFKA_BROKERS and DATABASE_URL are set, else those of a running \`up\`. Exit code 1 if
something prevents Tapeline from working (✗); warnings (!) do not.

Examples:
  bin/tapeline doctor
  KAFKA_BROKERS=kafka:9092 DATABASE_URL=postgres://tapeline:secret@db:5432/tapeline bin/tapeline doctor`,
    )
    .action(async (flags: { json?: true }) => {
      const { settings, running } = here()
      // Imported here, since the other commands do not need it.
      const { examine } = await import('../tools/doctor/examine.ts')
      const findings = await examine(settings, running)
      if (flags.json === true) console.log(JSON.stringify(findings, null, 2))
      else for (const line of findings.flatMap(linesOf)) console.log(line)
      if (findings.some(({ verdict }) => verdict === 'bad')) process.exitCode = 1
    })
}

/** Loads the settings. Where Kafka and database are not set, uses those of the running `up`. */
function here(): { settings: Settings; running: ReturnType<typeof ownProcesses> } {
  const load = (environment: NodeJS.ProcessEnv) => loadSettings(environment, { cwd: process.cwd() })
  const settings = load(process.env)
  const running = ownProcesses(settings)
  if (running === null) return { settings, running }
  const { kafkaBrokers: KAFKA_BROKERS, databaseUrl: DATABASE_URL } = running
  const environment = { ...process.env, KAFKA_BROKERS, DATABASE_URL }
  return { settings: load(environment), running }
}

function linesOf({ what, verdict, text, fix }: Finding): string[] {
  const style = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '' ? colourStyle : plainStyle
  const paint = { good: style.good, warning: style.warn, bad: style.bad, none: style.dim }[verdict]
  const indent = ' '.repeat(COLUMN + 3)
  return [`${paint(MARKS[verdict])} ${what.padEnd(COLUMN)} ${text}`, ...(fix === '' ? [] : [indent + fix])]
}
