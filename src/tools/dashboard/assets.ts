import { existsSync, readFileSync } from 'node:fs'
import { createRequire, stripTypeScriptTypes } from 'node:module'
import { dirname, join } from 'node:path'

export interface Asset {
  readonly type: string
  readonly body: string
}

const PAGE = join(import.meta.dirname, 'page')
const UPLOT = dirname(createRequire(import.meta.url).resolve('uplot'))

const HTML = 'text/html; charset=utf-8'
const CSS = 'text/css; charset=utf-8'
const SCRIPT = 'text/javascript; charset=utf-8'

/** All files that a page loads, by path. Nothing else is served. */
export const ASSETS: ReadonlyMap<string, () => Asset> = new Map([
  ['/', () => file(HTML, join(PAGE, 'index.html'))],
  ['/style.css', () => file(CSS, join(PAGE, 'style.css'))],
  ['/icon.svg', () => file('image/svg+xml', join(PAGE, 'icon.svg'))],
  ...['main', 'charts', 'depth', 'view', 'format'].map(
    (name) => [`/${name}.js`, () => script(name)] as const,
  ),
  ['/vendor/uplot.js', () => file(SCRIPT, join(UPLOT, 'uPlot.esm.js'))],
  ['/vendor/uplot.css', () => file(CSS, join(UPLOT, 'uPlot.min.css'))],
])

function file(type: string, path: string): Asset {
  return { type, body: readFileSync(path, 'utf8') }
}

/** The built module, or its source without types, with the paths of the browser in its imports. */
function script(name: string): Asset {
  const built = join(PAGE, `${name}.js`)
  const code = existsSync(built)
    ? readFileSync(built, 'utf8')
    : stripTypeScriptTypes(readFileSync(join(PAGE, `${name}.ts`), 'utf8'))
  return {
    type: SCRIPT,
    body: code
      .replaceAll(/(from '\.\/\w+)\.ts'/g, "$1.js'")
      .replace("from 'uplot'", "from '/vendor/uplot.js'"),
  }
}
