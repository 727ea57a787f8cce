import { expect, it } from 'vitest';

import { modelMismatch, type ReplicatedField, type ReplicatedModel } from '../../src/replication/model.ts';

const field = (name: string, type = 'String', change: Partial<ReplicatedField> = {}): ReplicatedField => ({
  name,
  type,
  nullable: false,
  list: false,
  ...change,
});
const book: ReplicatedModel = { name: 'Book', key: field('id', 'Int'), fields: [field('title'), field('price', 'Decimal')] };

it('models of equal fields fit, in any order', () => {
  const turned = { ...book, fields: book.fields.toReversed() };
  const other: ReplicatedModel = { ...book, name: 'Other' };
  expect(modelMismatch([book, other], [other, turned])).toBeNull();
  expect(modelMismatch([], [])).toBeNull();
});

it('a model that one side lacks is named', () => {
  expect(modelMismatch([book], [])).toBe('it does not replicate model Book');
  expect(modelMismatch([], [book])).toBe('it replicates model Book, which this replica does not');
});

it.each<[string, ReplicatedModel, string]>([
  ['a field that is missing', { ...book, fields: [field('title')] }, 'it lacks price Decimal'],
  ['a field too many', { ...book, fields: [...book.fields, field('isbn')] }, 'it has isbn String'],
  ['another type', { ...book, fields: [field('title'), field('price', 'Float')] }, 'it lacks price Decimal; it has price Float'],
  ['null', { ...book, fields: [field('title', 'String', { nullable: true }), field('price', 'Decimal')] }, 'it lacks title String; it has title String?'],
  ['a list', { ...book, fields: [field('title', 'String', { list: true }), field('price', 'Decimal')] }, 'it lacks title String; it has title String[]'],
  ['another key', { ...book, key: field('id', 'BigInt') }, 'it lacks id Int (key); it has id BigInt (key)'],
])('%s is told', (_, theirs, problem) => {
  expect(modelMismatch([book], [theirs])).toBe(`its model Book has other fields: ${problem}`);
});
