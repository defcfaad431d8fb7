import { fileURLToPath } from 'node:url'

/** Extension of modules: `.ts` in a checkout, `.js` in a package. */
const EXTENSION = import.meta.url.endsWith('.ts') ? '.ts' : '.js'

/** The file of the command line, used to run a command as a process. */
export const COMMAND_LINE = moduleFile('../../cli/main')

/** The file that runs the embedded database. */
export const EMBEDDED_DATABASE = moduleFile('../embedded-timescaledb/embedded-database-main')

/** Preloaded into every Node child. Stops the child when this process ends. */
export const STOP_WITH_PARENT = new URL(`./stop-with-parent${EXTENSION}`, import.meta.url).href

function moduleFile(name: string): string {
  return fileURLToPath(new URL(`${name}${EXTENSION}`, import.meta.url))
}
