import type { Command } from 'commander'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import { guardTerminal } from '../foundation/telemetry/terminal.ts'
import { createProgram } from './program.ts'

guardTerminal(process.stdout)
guardTerminal(process.stderr)
const program = await createProgram(process.argv[2])
refuseWith2(program)

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = isTapelineError(error) ? error.exitCode : 1
  console.error(message(error))
}

/** Exits with 2 for a wrong command line, as for a wrong setting. */
function refuseWith2(command: Command): void {
  command.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  for (const subcommand of command.commands) refuseWith2(subcommand)
}

/** The cause and the fix, one line each. Adds the stack for unexpected errors, or on request. */
function message(error: unknown): string {
  const lines = [`tapeline: ${describeError(error)}`]
  if (isTapelineError(error)) {
    if (error.fix !== '') lines.push(`  ${error.fix}`)
    if (process.env['LOG_LEVEL'] === 'debug') lines.push(String(error.stack))
  } else if (error instanceof Error) lines.push(String(error.stack))
  return lines.join('\n')
}
