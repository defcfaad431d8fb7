import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { parse } from 'yaml'
import { z } from 'zod'

const ROOT = resolve(import.meta.dirname, '..')
const RULES = join(ROOT, 'ops/prometheus')
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')

const RULE_FILE = z.object({
  groups: z.array(
    z.object({
      name: z.string(),
      rules: z.array(
        z.strictObject({
          alert: z.string().regex(/^Tapeline[A-Z]\w+$/),
          expr: z.string(),
          for: z.string().regex(/^\d+m$/),
          labels: z.strictObject({ severity: z.enum(['critical', 'warning']) }),
          annotations: z.strictObject({
            summary: z.string().min(10),
            description: z.string().min(10),
            runbook: z.string(),
          }),
        }),
      ),
    }),
  ),
})

const rules = RULE_FILE.parse(parse(read('ops/prometheus/alerts.yml'))).groups.flatMap((group) => group.rules)
const hasPromtool = spawnSync('promtool', ['--version'], { stdio: 'ignore' }).status === 0
const needsPromtool = hasPromtool ? {} : { skip: 'promtool is not installed (Debian: package prometheus)' }

test('every alert has a section in the run-book, and every section an alert', () => {
  const names = rules.map(({ alert }) => alert)
  assert.equal(new Set(names).size, names.length)
  const headings = [...read('docs/operations.md').matchAll(/^### (Tapeline\w+)$/gm)].map(
    (match) => match[1] ?? '',
  )
  assert.deepEqual(headings.toSorted(), names.toSorted())
  for (const { alert, annotations } of rules)
    assert.equal(annotations.runbook, `docs/operations.md#${alert.toLowerCase()}`)
})

test('each section of the run-book has meaning, diagnosis and fix', () => {
  const sections = read('docs/operations.md').split(/^(?=##+ )/m)
  for (const { alert } of rules) {
    const section = sections.find((one) => one.startsWith(`### ${alert}\n`)) ?? assert.fail(alert)
    for (const part of ['**Means.**', '**Look.**', '**Do.**'])
      assert.ok(section.includes(part), `${alert} lacks ${part}`)
  }
})

test('Prometheus accepts the rules and its configuration', needsPromtool, () => {
  promtool('check', 'rules', 'alerts.yml')
  promtool('check', 'config', 'prometheus.yml')
})

test('each alert fires when it should, and none for a healthy system', needsPromtool, () => {
  const tried = read('ops/prometheus/alerts.test.yml')
  for (const { alert } of rules) assert.ok(tried.includes(`alertname="${alert}"`), `${alert} is not tested`)
  promtool('test', 'rules', 'alerts.test.yml')
})

/** The tests of the rules compute some ten seconds: 3,800 evaluations of every rule. */
const LIMIT_MS = 300_000

function promtool(...args: string[]): void {
  const { error, status, stdout, stderr } = spawnSync('promtool', args, {
    cwd: RULES,
    encoding: 'utf8',
    timeout: LIMIT_MS,
  })
  assert.ifError(error)
  assert.equal(status, 0, stdout + stderr)
}
