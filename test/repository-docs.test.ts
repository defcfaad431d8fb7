import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { test } from 'node:test'
import { selectTestFiles } from './support/test-files.ts'

const ROOT = resolve(import.meta.dirname, '..')
const PAGES = ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', ...glob('docs/**/*.md')]
/** Every file that a page may name. */
const FILES = [
  ...glob('{src,test,bench,chaos,scripts,docs,docker,ops,k8s}/**/*'),
  ...glob('*'),
  '.ci/run',
  '.env.example',
]
const NAMES = new Set(FILES.map((file) => basename(file)))

function glob(pattern: string): string[] {
  return globSync(pattern, { cwd: ROOT, exclude: ['node_modules/**'] })
}

function read(page: string): string {
  return readFileSync(join(ROOT, page), 'utf8')
}

/** Findings as `page: text`. */
function findings(
  find: (text: string, page: string) => Iterable<string>,
  pages: readonly string[] = PAGES,
): string[] {
  return pages.flatMap((page) => [...find(read(page), page)].map((one) => `${page}: ${one}`))
}

test('every link of the docs has a target', () => {
  assert.deepEqual(
    findings(function* (text, page) {
      for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue
        const [path = '', anchor] = target.split('#')
        const file = path === '' ? page : join(dirname(page), path)
        if (!existsSync(join(ROOT, file))) yield target
        else if (anchor !== undefined && !anchors(read(file)).has(anchor)) yield target
      }
    }),
    [],
  )
})

test('every file named in the docs exists', () => {
  assert.deepEqual(
    findings(
      function* (text) {
        for (const [, code = ''] of text.matchAll(/`([^`\n]+)`/g)) {
          if (!/^[\w.@/-]+\.(ts|sql|yml|yaml|json|sh|mjs|md)$/.test(code) || /^[A-Z_]+\./.test(code)) continue
          // A bare name with another extension may be an external file.
          const known = code.includes('/')
            ? existsSync(join(ROOT, code))
            : NAMES.has(code) || !code.endsWith('.ts')
          if (!known) yield code
        }
      },
      PAGES.filter((page) => page !== 'CHANGELOG.md'),
    ),
    [],
  )
})

test('every npm command in the docs works', () => {
  const { scripts }: { scripts: Record<string, string> } = JSON.parse(read('package.json'))
  const testFiles = glob('test/**/*.test.ts')
  assert.deepEqual(
    findings(function* (text) {
      for (const [, script = ''] of text.matchAll(/npm run ([\w:-]+)/g))
        if (!(script in scripts)) yield `npm run ${script}`
      for (const [, name = ''] of text.matchAll(/npm test -- ([\w-]+)/g)) {
        if (!name.startsWith('-') && selectTestFiles(testFiles, [name]).length === 0)
          yield `npm test -- ${name}`
      }
    }),
    [],
  )
})

/** The anchors of a page's rendered headings. */
function anchors(text: string): Set<string> {
  return new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )
}
