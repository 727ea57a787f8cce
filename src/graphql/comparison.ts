/** Comparing with a peer, and mending what differs. */
import type { ComparedRecord, ComparedVersion, Comparison, RepairResult } from '../services/comparison.ts';
import { builder } from './builder.ts';

const difference = builder.enumType('Difference', {
  values: {
    DIFFERING: { description: 'The states differ, and no sync would carry the difference: `repair` mends it.' },
    CORRUPTED: {
      description:
        'The states are the same, and the rows of the table are not: a row was changed behind the triggers. Write the right values on the replica that is wrong, so that they are captured and win everywhere.',
    },
  },
});

const comparedVersionType = builder.objectRef<ComparedVersion>('ComparedVersion').implement({
  fields: (t) => ({
    values: t.expose('values', { type: 'JSON', nullable: true, description: 'Null where this version is a deletion.' }),
    version: t.expose('version', { type: 'VersionVector' }),
  }),
});

const comparedRecordType = builder.objectRef<ComparedRecord>('ComparedRecord').implement({
  description: 'A record that no sync would make the same.',
  fields: (t) => ({
    model: t.exposeString('model'),
    recordId: t.exposeID('recordId'),
    difference: t.expose('difference', { type: difference }),
    here: t.field({ type: [comparedVersionType], description: 'The versions held here; none where the record is not known.', resolve: ({ here }) => [...here] }),
    there: t.field({ type: [comparedVersionType], description: 'The versions that the peer holds.', resolve: ({ there }) => [...there] }),
  }),
});

const comparisonType = builder.objectRef<Comparison>('Comparison').implement({
  fields: (t) => ({
    peer: t.exposeString('peer'),
    records: t.exposeInt('records', { description: 'Records on either side, deleted ones that are still remembered included.' }),
    same: t.exposeInt('same'),
    onTheirWay: t.exposeInt('onTheirWay', { description: 'Those that differ, and that the next sync in one direction or the other carries.' }),
    differing: t.exposeInt('differing', { description: 'Those that differ for good, unless they are written again or mended.' }),
    corrupted: t.exposeInt('corrupted', { description: 'Those whose rows differ under equal states; found by a deep comparison alone.' }),
    ratio: t.exposeFloat('ratio', { description: '`same` over `records`; 1 where there are none.' }),
    samples: t.field({ type: [comparedRecordType], description: 'Of those that differ for good or are corrupted, the first.', resolve: ({ samples }) => [...samples] }),
    durationMs: t.exposeFloat('durationMs'),
  }),
});

const repairType = builder.objectRef<RepairResult>('RepairResult').implement({
  fields: (t) => ({
    before: t.field({ type: comparisonType, resolve: ({ before }) => before }),
    after: t.field({ type: comparisonType, nullable: true, description: 'Compared again afterwards; null for a dry run.', resolve: ({ after }) => after }),
    mended: t.exposeInt('mended', { description: 'Records that both sides have sent anew.' }),
    durationMs: t.exposeFloat('durationMs'),
  }),
});

const DEEP = 'compute every hash anew and compare the tables’ rows too, at the price of reading both databases through';

builder.queryFields((t) => ({
  compare: t.field({
    type: comparisonType,
    description: `Compares the records here with a peer's: the digests, then the records of the buckets that differ. \`first\` is how many samples to show; \`deep\`: ${DEEP}.`,
    args: { peer: t.arg.string({ required: true }), deep: t.arg.boolean({ defaultValue: false }), first: t.arg.int({ defaultValue: 10 }) },
    resolve: (_root, { peer, deep, first }, { services }) => services.comparison.compare(peer, { deep: deep ?? false, first: first ?? undefined }),
  }),
}));

builder.mutationFields((t) => ({
  repair: t.field({
    type: repairType,
    description: `Compares, has both sides send again what differs for good, merges it as any change, and compares again. Nothing that was written is lost: versions of which neither has seen the other become a conflict. \`dryRun\`: only tell what would be mended; \`deep\`: ${DEEP}.`,
    args: {
      peer: t.arg.string({ required: true }),
      dryRun: t.arg.boolean({ defaultValue: false }),
      deep: t.arg.boolean({ defaultValue: false }),
      first: t.arg.int({ defaultValue: 10 }),
    },
    resolve: (_root, { peer, dryRun, deep, first }, { services }) =>
      services.comparison.repair(peer, { deep: deep ?? false, dryRun: dryRun ?? false, first: first ?? undefined }),
  }),
}));
