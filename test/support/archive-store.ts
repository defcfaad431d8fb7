import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { openFolderStore } from '../../src/foundation/archive/folder-store.ts'
import type { ObjectStore } from '../../src/foundation/archive/object-store.ts'

type Open = (context: TestContext) => ObjectStore

let open: Open = (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-archive-'))
  context.after(() => rmSync(folder, { recursive: true }))
  return openFolderStore(folder)
}

/** Makes the tests of the archive's protocol use another kind of store. */
export function useStore(other: Open): void {
  open = other
}

/** An empty store, until the end of the test. */
export async function openTestStore(context: TestContext): Promise<ObjectStore> {
  const store = open(context)
  await store.prepare()
  return store
}
