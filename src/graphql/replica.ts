/** What this replica knows of itself and of its peers. */
import type { SetAside } from '../services/asides.ts';
import type { Member } from '../services/roster.ts';
import type { PeerStatus, ReplicaStatus, WaitingRecord } from '../services/status.ts';
import { builder } from './builder.ts';
import { DEFAULT_PAGE, parseFirst } from './page.ts';

const peerState = builder.enumType('PeerState', {
  values: ['CONNECTED', 'UNREACHABLE', 'REJECTED', 'UNKNOWN'],
});

const peerType = builder.objectRef<PeerStatus>('Peer').implement({
  fields: (t) => ({
    name: t.exposeString('name'),
    url: t.exposeString('url'),
    state: t.expose('state', { type: peerState }),
    reason: t.exposeString('reason', { nullable: true, description: 'Why it is UNREACHABLE or REJECTED, and what to do; null otherwise.' }),
    lastSyncAt: t.expose('lastSyncAt', { type: 'DateTime', nullable: true }),
    pendingChanges: t.exposeInt('pendingChanges', {
      description: 'Records changed here that the peer has not acknowledged; 100,000 stands for that many and more.',
    }),
    lagSeconds: t.exposeFloat('lagSeconds', { description: 'Age of the oldest of them, in seconds; 0 when there is none.' }),
    consistency: t.exposeFloat('consistency', {
      nullable: true,
      description:
        'Share of records that are the same on both replicas, 0 to 1, compared after each sync and every 30 seconds; null until first compared.',
    }),
    clockSkewSeconds: t.exposeFloat('clockSkewSeconds', {
      nullable: true,
      description: "The peer's clock less this one's, to a tenth of a second, as last measured; null until then. No conflict is missed for it.",
    }),
  }),
});

const waitingRecordType = builder.objectRef<WaitingRecord>('WaitingRecord').implement({
  description:
    'A record whose state cannot be shown in its table (a value that another record holds, a parent that has not come): it waits, and is tried again.',
  fields: (t) => ({
    model: t.exposeString('model'),
    recordId: t.exposeID('recordId'),
    reason: t.exposeString('reason', { description: 'Why it cannot be shown.' }),
    values: t.expose('values', {
      type: 'JSON',
      nullable: true,
      description: 'The values that wait; null where a deletion waits.',
    }),
  }),
});

const setAsideType = builder.objectRef<SetAside>('SetAsideRecord').implement({
  description:
    'A record that was here before the database was restored to before deletions that others have forgotten, and that no peer has sent since: it may be deleted. It waits for a person (restoreSetAside, discardSetAside), or for a peer that still has it.',
  fields: (t) => ({
    id: t.exposeID('id', { description: 'For the page after it.' }),
    model: t.exposeString('model'),
    recordId: t.exposeID('recordId'),
    since: t.expose('since', { type: 'DateTime' }),
    values: t.expose('values', { type: 'JSON', nullable: true, description: 'Its latest values; null for a deletion.' }),
  }),
});

const memberType = builder.objectRef<Member>('Member').implement({
  description: 'A replica of the roster, whether a peer or a peer of a peer.',
  fields: (t) => ({
    name: t.exposeString('name'),
    struck: t.exposeBoolean('struck', {
      description: 'It was struck: it holds no deletion up, is not listened to, and its name and slot are free for another.',
    }),
  }),
});

const replicaType = builder.objectRef<ReplicaStatus>('Replica').implement({
  fields: (t) => ({
    name: t.exposeString('name'),
    leading: t.boolean({
      description:
        'Whether the gateway that was asked leads: of several over one database, one sends changes by itself, compares with the peers and tries again.',
      resolve: (status) => status.leading(),
    }),
    peers: t.field({ type: [peerType], resolve: (status) => status.peers() }),
    records: t.int({ resolve: (status) => status.records() }),
    pendingConflicts: t.int({ resolve: (status) => status.pendingConflicts() }),
    resolvedConflicts: t.int({
      description: 'Resolved conflicts that the log still holds.',
      resolve: (status) => status.resolvedConflicts(),
    }),
    conflictRetentionSeconds: t.exposeFloat('conflictRetentionSeconds', {
      nullable: true,
      description: 'How long the log holds a conflict after it was resolved (CONFLICT_RETENTION); null: for ever.',
    }),
    roster: t.field({
      type: [memberType],
      description: 'Everyone known, this replica included, in order of name.',
      resolve: (_status, _args, { services }) => services.roster.members(),
    }),
    reseeding: t.boolean({
      description:
        'The database was restored to before deletions that others have forgotten, and not every replica of the roster was heard of since: what was here before the restore, and is still shown, may be deleted.',
      resolve: (_status, _args, { services }) => services.asides.reseeding(),
    }),
    setAside: t.field({
      type: [setAsideType],
      description: 'The records that no peer has confirmed since such a restore, in order of model and key.',
      args: { first: t.arg.int({ defaultValue: DEFAULT_PAGE }), after: t.arg.id() },
      resolve: (_status, { first, after }, { services }) => services.asides.list(parseFirst(first), after ?? null),
    }),
    waiting: t.field({
      type: [waitingRecordType],
      description: 'The records that wait to be shown, in order of key.',
      args: { first: t.arg.int({ defaultValue: DEFAULT_PAGE }) },
      resolve: (status, { first }) => status.waiting(parseFirst(first)),
    }),
  }),
});

builder.queryFields((t) => ({
  replica: t.field({ type: replicaType, resolve: (_root, _args, { services }) => services.status }),
}));

builder.mutationFields((t) => ({
  addPeer: t.field({
    type: peerType,
    description:
      'Adds a peer while running: every gateway of this replica follows within a second, and restarts keep it. The peer has to add this replica in turn to send its own changes. Where PEER_SECRET is set, the request carries it (Authorization: Bearer …), since it is sent to that address.',
    args: { name: t.arg.string({ required: true }), url: t.arg.string({ required: true }) },
    resolve: (_root, { name, url }, { services, authorization }) => services.peering.add(name, url, authorization),
  }),
  removePeer: t.field({
    type: peerType,
    description:
      'Removes a peer, and gives it back as it was. One that PEERS still names comes back when a gateway starts. It stays in the roster, and may be added again. Where PEER_SECRET is set, the request carries it.',
    args: { name: t.arg.string({ required: true }) },
    resolve: (_root, { name }, { services, authorization }) => services.peering.remove(name, authorization),
  }),
  restoreSetAside: t.field({
    type: replicaType,
    description: 'Writes the latest values of a record that is set aside again, as a new write.',
    args: { model: t.arg.string({ required: true }), recordId: t.arg.id({ required: true }) },
    async resolve(_root, { model, recordId }, { services }) {
      await services.asides.restore(model, recordId);
      return services.status;
    },
  }),
  discardSetAside: t.field({
    type: replicaType,
    description: 'Lets a record go that is set aside.',
    args: { model: t.arg.string({ required: true }), recordId: t.arg.id({ required: true }) },
    async resolve(_root, { model, recordId }, { services }) {
      await services.asides.discard(model, recordId);
      return services.status;
    },
  }),
  strikeReplica: t.field({
    type: replicaType,
    description: [
      'Strikes a replica that does not come back from the roster, here and, with the next handshakes, everywhere. Deletions are forgotten only once every replica of the roster has them: one that is away for good holds that up.',
      'If it comes back all the same it is refused, until it is started with an empty database. Where PEER_SECRET is set, the request carries it.',
    ].join('\n'),
    args: { name: t.arg.string({ required: true }) },
    async resolve(_root, { name }, { services, authorization }) {
      await services.roster.strike(name, authorization);
      return services.status;
    },
  }),
}));
