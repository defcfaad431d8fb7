import type { SettingName } from './definitions.ts'
import type { Settings } from './load.ts'

/** A setting's value as it may be shown, and whether the person has set it: who has not must not be told to correct it. */
export function withOrigin(settings: Pick<Settings, 'isSet'>, name: SettingName, shown: string): string {
  return `${shown} (${settings.isSet(name) ? name : `the default of ${name}`})`
}
