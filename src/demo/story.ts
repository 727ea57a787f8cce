/** The concurrent updates that the demo plays, and how it tells them. */
import type { UpdateUserInput } from '../generated/graphql/graphql.ts';
import { RequestError } from './client.ts';
import type { Conflict, ReplicaClient, User } from './client.ts';
import { note, table } from './terminal.ts';
import type { Paint, Row } from './terminal.ts';

export interface Stage {
  readonly here: ReplicaClient;
  readonly there: ReplicaClient;
  readonly paint: Paint;
  say(text: string): void;
}

/** A conflict that waits, by its number on each replica. */
export interface Pending {
  readonly user: User;
  readonly here: Conflict;
  readonly there: Conflict;
}

/** What one replica does to a user that the other has as well; null deletes it. */
type Write = UpdateUserInput | null;
type Decision = (stage: Stage, conflict: { readonly here: Conflict; readonly there: Conflict }) => Promise<string>;

interface Scene {
  readonly title: string;
  readonly nom: string;
  readonly email: string;
  readonly here: Write;
  readonly there: Write;
  /** Settles the conflict, and says how; null where none is expected. */
  readonly decide: Decision | null;
}

/**
 * Plays every scene, the last of which leaves its conflict pending.
 *
 * @param run - Makes the emails of this run its own, so that the demo can be played again.
 * @throws RequestError when a replica refuses, or does other than what is told.
 */
export async function tellStory(stage: Stage, run: string): Promise<Pending> {
  const { here, there, paint, say } = stage;
  say(`${paint.bold('Replique: concurrent updates on two replicas')}\n`);
  say(`   ${here.name}  ${here.url}`);
  say(`   ${there.name}  ${there.url}\n`);
  say('   Each has a PostgreSQL database of its own. Changes travel when a sync is asked for,');
  say('   and a conflict waits for a decision: CONFLICT_POLICY=manual.');
  const scenes = settledScenes(run);
  for (const [index, scene] of scenes.entries()) await play(stage, scene, index + 1);

  const left = pendingScene(run);
  say(title(`${scenes.length + 1}. ${left.title}`, paint));
  const user = await prepare(stage, left);
  await act(stage, left, user);
  await showHeld(stage, user.id);
  const conflict = await findConflict(stage, user.id);
  say(describeConflict(stage, conflict));
  return { user, ...conflict };
}

function settledScenes(run: string): Scene[] {
  const address = (name: string) => `${name}.${run}@example.org`;
  return [
    {
      title: 'Different fields',
      nom: 'Grace Hopper',
      email: address('grace'),
      here: { email: address('grace.hopper') },
      there: { telephone: '+1 555 0100' },
      async decide({ here }, conflict) {
        await here.resolve(conflict.here.id, 'FIELD_WISE');
        return `FIELD_WISE, asked for on ${here.name}: of each field, what was written last`;
      },
    },
    {
      title: 'The same field',
      nom: 'Alan Turing',
      email: address('alan'),
      here: { telephone: '+44 20 7946 0001' },
      there: { telephone: '+44 20 7946 0002' },
      async decide({ there }, conflict) {
        await there.resolve(conflict.there.id, 'LATEST');
        return `LATEST, asked for on ${there.name}: the whole record that was written last`;
      },
    },
    {
      title: 'Update against delete',
      nom: 'Edsger Dijkstra',
      email: address('edsger'),
      here: null,
      there: { email: address('ewd') },
      async decide({ here, there }, conflict) {
        await here.choose(conflict.here.id, there.name);
        return `by hand on ${here.name}: the version of ${there.name}, so the user is back`;
      },
    },
    {
      title: 'Identical values',
      nom: 'Barbara Liskov',
      email: address('barbara'),
      here: { telephone: '+1 555 0142' },
      there: { telephone: '+1 555 0142' },
      decide: null,
    },
  ];
}

function pendingScene(run: string): Scene {
  const address = (name: string) => `${name}.${run}@example.org`;
  return {
    title: 'One for you',
    nom: 'Ada Lovelace',
    email: address('ada'),
    here: { email: address('ada.lovelace'), telephone: '+44 20 7946 1815' },
    there: { email: address('countess'), nom: 'Ada King' },
    decide: null,
  };
}

async function play(stage: Stage, scene: Scene, number: number): Promise<void> {
  const { here, there, paint, say } = stage;
  say(title(`${number}. ${scene.title}`, paint));
  const user = await prepare(stage, scene);
  await act(stage, scene, user);
  await showHeld(stage, user.id);
  if (scene.decide === null) {
    const found = await here.conflictOn(user.id);
    if (found !== null) throw new RequestError(`replica ${here.name} has a conflict (${found.id}) where both sides hold the same.`);
    say(`\n${note('conflict', 'none: both say the same', paint)}`);
    say(note('outcome', paint.good('nothing to decide'), paint));
    return;
  }
  const conflict = await findConflict(stage, user.id);
  say(describeConflict(stage, conflict));
  say(note('strategy', await scene.decide(stage, conflict), paint));
  const [onHere, onThere] = await Promise.all([here.conflict(conflict.here.id), there.conflict(conflict.there.id)]);
  if (onHere?.status !== 'RESOLVED' || onThere?.status !== 'RESOLVED') throw new RequestError(`the conflict on user ${user.id} is not resolved on both replicas.`);
  say(note('outcome', paint.good(`resolved on both (${onHere.resolution}, on ${onHere.resolvedBy}); both hold`), paint));
  const held = await showHeld(stage, user.id);
  if (rowsOf(held).some(({ cells }) => new Set(cells).size > 1)) throw new RequestError(`the replicas hold different values for user ${user.id}, after the conflict was resolved.`);
}

/** Both replicas have the user before the scene begins. */
async function prepare({ here, there, say }: Stage, { nom, email }: Scene): Promise<User> {
  const user = await here.createUser({ nom, email });
  await here.syncTo(there.name);
  say(`   ${nom} (user ${user.id}) is on both. Neither hearing of the other,`);
  return user;
}

async function act({ here, there, say }: Stage, scene: Scene, { id }: User): Promise<void> {
  for (const [replica, write] of [[here, scene.here], [there, scene.there]] as const) {
    if (write === null) await replica.deleteUser(id);
    else await replica.updateUser(id, write);
    say(`     ${replica.name}  ${write === null ? 'deletes it' : `sets ${Object.entries(write).map(([field, value]) => `${field} to ${value}`).join(', ')}`}`);
  }
  const { sent, conflictsDetected } = await here.syncTo(there.name);
  say(`   then ${here.name} syncs to ${there.name}: ${sent} sent, ${conflictsDetected} ${conflictsDetected === 1 ? 'conflict' : 'conflicts'}. They hold`);
}

async function findConflict({ here, there }: Stage, userId: string): Promise<{ here: Conflict; there: Conflict }> {
  const [onHere, onThere] = await Promise.all([here.conflictOn(userId), there.conflictOn(userId)]);
  for (const [replica, conflict] of [[here, onHere], [there, onThere]] as const) {
    if (conflict?.status === 'PENDING') continue;
    throw new RequestError(
      `replica ${replica.name} ${conflict === null ? 'detected no conflict' : 'resolved the conflict at once'}, and the demo decides each itself. ` +
        'Restart the replicas with SYNC_MODE=manual and CONFLICT_POLICY=manual, or stop them: the demo then starts its own.',
    );
  }
  return { here: onHere as Conflict, there: onThere as Conflict };
}

function describeConflict({ here, there, paint }: Stage, conflict: { readonly here: Conflict; readonly there: Conflict }): string {
  const { kind, fields } = conflict.here;
  const numbers = `no. ${conflict.here.id} on ${here.name}, no. ${conflict.there.id} on ${there.name}`;
  return `\n${note('conflict', `${kind}${fields.length > 0 ? ` on ${fields.join(', ')}` : ''}; pending as ${numbers}`, paint)}`;
}

type Held = readonly [User | null, User | null];

async function showHeld({ here, there, paint, say }: Stage, id: string): Promise<Held> {
  const held: Held = await Promise.all([here.user(id), there.user(id)]);
  const columns = [here, there].map(({ name }, index) => (held[index] === null ? `${name} (deleted)` : name));
  say(`\n${table(columns, rowsOf(held), paint)}`);
  return held;
}

function rowsOf(held: Held): Row[] {
  return (['nom', 'email', 'telephone'] as const).map((field) => ({
    label: field,
    cells: held.map((user) => (user === null ? '-' : (user[field] ?? 'null'))),
  }));
}

function title(text: string, paint: Paint): string {
  return `\n${paint.bold(text)}\n`;
}
