import type { SettingName } from './definitions.ts'
import type { Settings } from './load.ts'

/**
 * Returns a setting's value for display, and whether it was set or is the default, so that messages
 * do not ask to correct a setting that was never set.
 */
export function withOrigin(settings: Pick<Settings, 'isSet'>, name: SettingName, shown: string): string {
  return `${shown} (${settings.isSet(name) ? name : `the default of ${name}`})`
}
