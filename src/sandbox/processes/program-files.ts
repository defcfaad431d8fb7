import { fileURLToPath } from 'node:url'

/** Modules run as they are written in a checkout (`.ts`) and compiled in a package (`.js`). */
const EXTENSION = import.meta.url.endsWith('.ts') ? '.ts' : '.js'

/** The file of the command line, to run one of its commands as a process of its own. */
export const COMMAND_LINE = moduleFile('../../cli/main')

/** The file that runs the embedded database. */
export const EMBEDDED_DATABASE = moduleFile('../embedded-timescaledb/embedded-database-main')

/** Preloaded into every Node child: it stops the child when this process is gone. */
export const STOP_WITH_PARENT = new URL(`./stop-with-parent${EXTENSION}`, import.meta.url).href

function moduleFile(name: string): string {
  return fileURLToPath(new URL(`${name}${EXTENSION}`, import.meta.url))
}
