/**
 * Takes the screenshots of the docs: `scripts/with-node scripts/screenshots.ts`. It runs the demo
 * for two minutes in a tmux terminal, with a gap and a dead letter. It needs Chromium and tmux on
 * the PATH, and free ports for the demo.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { launchBrowser } from '../test/support/browser.ts'
import { until } from '../test/support/wait-for.ts'

const ROOT = resolve(import.meta.dirname, '..')
const IMAGES = join(ROOT, 'docs/images')
const DASHBOARD = 'http://127.0.0.1:8090'
const SOCKET = 'tapeline-screenshots'
const COLUMNS = 92
const WARM_UP_MS = 90_000
const HEALED_MS = 15_000

function tmux(...args: string[]): string {
  return execFileSync('tmux', ['-L', SOCKET, ...args], { encoding: 'utf8' })
}

/** ANSI escape sequence for a colour. */
const SGR = new RegExp(`${String.fromCharCode(27)}\\[([\\d;]*)m`, 'g')

const wait = (ms: number) => new Promise((done) => setTimeout(done, ms))

const cwd = mkdtempSync(join(tmpdir(), 'screenshots-'))
mkdirSync(IMAGES, { recursive: true })
const browser = await launchBrowser()
try {
  const command = `${join(ROOT, 'bin/tapeline')} up --simulate --faults`
  tmux('new-session', '-d', '-x', String(COLUMNS), '-y', '30', '-c', cwd, command)
  await until('the dashboard', async () => (await fetch(`${DASHBOARD}/readyz`)).ok, 120_000)
  const watching = await browser.newPage()
  await watching.goto(DASHBOARD)
  await wait(WARM_UP_MS)
  for (const fault of [
    { kind: 'drop', stream: 'btcusdt@trade', count: 25 },
    { kind: 'cut', how: 'reset' },
    { kind: 'garbage', form: 'text', count: 1 },
  ]) {
    await fetch('http://127.0.0.1:9443/faults', { method: 'POST', body: JSON.stringify(fault) })
    await wait(HEALED_MS)
  }
  await photograph(terminalPage(tmux('capture-pane', '-e', '-p')), 'terminal', { width: 860, height: 10 })
  for (const colorScheme of ['light', 'dark'] as const) {
    await photograph(DASHBOARD, `dashboard-desktop-${colorScheme}`, { width: 1280, height: 900 }, colorScheme)
    await photograph(DASHBOARD, `dashboard-phone-${colorScheme}`, { width: 390, height: 844 }, colorScheme)
  }
  tmux('send-keys', 'C-c')
  await wait(HEALED_MS)
} finally {
  await browser.close()
  // It has ended with the demo, unless something failed.
  spawnSync('tmux', ['-L', SOCKET, 'kill-server'])
  rmSync(cwd, { recursive: true, force: true })
}

async function photograph(
  urlOrHtml: string,
  name: string,
  viewport: { width: number; height: number },
  colorScheme: 'light' | 'dark' = 'light',
): Promise<void> {
  const page = await browser.newPage({ viewport, colorScheme })
  const isHtml = urlOrHtml.startsWith('<')
  if (isHtml) await page.setContent(urlOrHtml)
  else {
    await page.goto(urlOrHtml)
    await page.locator('#price canvas').waitFor()
    await wait(3000)
  }
  await page.screenshot({ path: join(IMAGES, `${name}.png`), fullPage: isHtml })
  await page.close()
}

/** Renders a terminal's text as a page, with the colours of its escape sequences. */
function terminalPage(text: string): string {
  const escaped = text.trimEnd().replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  const spans = escaped.replaceAll(SGR, (_, codes: string) => `</span><span class="${classesOf(codes)}">`)
  return `<style>
    body { margin: 0; background: #12181c; color: #d8dee2; }
    pre { font: 15px/1.4 'DejaVu Sans Mono', monospace; padding: 16px 20px; margin: 0; }
    .s1 { font-weight: bold } .s2 { opacity: 0.6 } .s31 { color: #f87171 } .s32 { color: #4ade80 } .s33 { color: #facc15 } .s36 { color: #2dd4bf }
  </style><pre><span>${spans}</span></pre>`
}

function classesOf(codes: string): string {
  return codes
    .split(';')
    .map((code) => `s${Number(code)}`)
    .join(' ')
}
