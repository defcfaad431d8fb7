import type { Queryable } from './database.ts'

/** Creates the roles: see `0005_roles.sql`. @returns the statements that this user must not execute */
export async function applyRoles(connection: Queryable): Promise<string[]> {
  const { rows } = await connection.query<{ statement: string }>(
    'SELECT statement FROM tapeline_roles() AS statement',
  )
  return rows.map(({ statement }) => statement)
}

/** The privilege that SET ROLE needs: since PostgreSQL 16, the creator of a role may only administer it. */
export const SET_ROLE_PRIVILEGE =
  "CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END"

/**
 * Creates further objects as tapeline_migrator, if that role owns the tables and this user may act as it,
 * until the transaction ends or {@link actAsOneself} is called.
 */
export async function actAsMigrator(connection: Queryable): Promise<void> {
  const { rows } = await connection.query<{ allowed: boolean }>(
    `SELECT pg_has_role(current_user, relowner, ${SET_ROLE_PRIVILEGE}) AS allowed FROM pg_class
     WHERE oid = to_regclass('trades') AND pg_get_userbyid(relowner) = 'tapeline_migrator'`,
  )
  if (rows[0]?.allowed === true) await connection.query('SET LOCAL ROLE tapeline_migrator')
}

export async function actAsOneself(connection: Queryable): Promise<void> {
  await connection.query('SET LOCAL ROLE NONE')
}
