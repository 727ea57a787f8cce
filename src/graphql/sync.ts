/** Sending changes to a peer. */
import type { SyncResult } from '../services/sync.ts';
import { builder } from './builder.ts';
import { conflictType } from './conflict.ts';
import { DEFAULT_PAGE, parseFirst } from './page.ts';

const syncResultType = builder.objectRef<SyncResult>('SyncResult').implement({
  fields: (t) => ({
    peer: t.exposeString('peer'),
    sent: t.exposeInt('sent', { description: 'Records sent to the peer.' }),
    applied: t.exposeInt('applied', { description: 'Records that the peer took over.' }),
    skipped: t.exposeInt('skipped', { description: 'Records that the peer already had.' }),
    conflictsDetected: t.exposeInt('conflictsDetected', {
      description: 'Conflicts newly detected by this sync, each counted once.',
    }),
    conflicts: t.field({
      type: [conflictType],
      args: { first: t.arg.int({ defaultValue: DEFAULT_PAGE }) },
      resolve: (result, { first }) => result.conflicts(parseFirst(first)),
    }),
    durationMs: t.exposeFloat('durationMs'),
  }),
});

builder.mutationFields((t) => ({
  syncTo: t.field({
    type: syncResultType,
    description:
      'Sends to a peer every change it has not acknowledged yet (those committed before the oldest transaction still writing).',
    args: { peer: t.arg.string({ required: true }) },
    resolve: (_root, { peer }, { services }) => services.sync.syncTo(peer),
  }),
}));
