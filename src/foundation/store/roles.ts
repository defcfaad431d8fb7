import type { Queryable } from './database.ts'

/**
 * Makes the roles and gives them their rights: see migration 5. Harmless when all is as it should be.
 *
 * @returns the statements that this user was not allowed, to be run by one who is
 */
export async function applyRoles(connection: Queryable): Promise<string[]> {
  const { rows } = await connection.query<{ statement: string }>(
    'SELECT statement FROM tapeline_roles() AS statement',
  )
  return rows.map(({ statement }) => statement)
}

/**
 * The privilege of `pg_has_role` that SET ROLE asks for: from PostgreSQL 16 on, who has made a role is a member that may only
 * administer it.
 */
export const SET_ROLE_PRIVILEGE =
  "CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END"

/**
 * From here to the end of the transaction, or to {@link actAsOneself}, what is made belongs to tapeline_migrator: where
 * that role owns the tables, and this user may act as it. Otherwise nothing changes.
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
