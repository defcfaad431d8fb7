import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

function executable(): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(delimiter)
  return folders.flatMap((folder) => NAMES.map((name) => join(folder, name))).find((path) => existsSync(path))
}

/** Skips without a browser; with TAPELINE_TEST_NATIVE=required the test fails instead. */
export function needsBrowser(): { skip?: string } {
  const isRequired = process.env['TAPELINE_TEST_NATIVE'] === 'required'
  return executable() !== undefined || isRequired ? {} : { skip: `no ${NAMES.join(', ')} on the PATH` }
}

/** Launches a real Chromium without a window. As root it cannot use its sandbox. */
export function launchBrowser(): Promise<Browser> {
  const executablePath = executable()
  if (executablePath === undefined) throw new Error(`No browser on the PATH: expected ${NAMES.join(', ')}`)
  return chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] })
}
