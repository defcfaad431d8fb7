import { Command } from 'commander'
import { historyCheckCommand } from './history-check.ts'
import { historyImportCommand } from './history-import.ts'

/** `tapeline history`: the exchange's daily files of trades. */
export function historyCommand(): Command {
  return new Command('history')
    .description("compare stored trades with the exchange's daily files, and import missing ones")
    .addCommand(historyCheckCommand())
    .addCommand(historyImportCommand())
}
