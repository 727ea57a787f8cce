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
  expect(modelMismatch([book], [])).toBe('it does not replicate model Book. Bring both to the same version of prisma/schema.prisma');
  expect(modelMismatch([], [book])).toBe('it replicates model Book, which this replica does not. Bring both to the same version of prisma/schema.prisma');
});

it.each<[string, ReplicatedField]>([
  ['may be null', field('isbn', 'String', { nullable: true })],
  ['is a list', field('tags', 'String', { list: true })],
  ['has a constant default', field('stock', 'Int', { default: '0' })],
])('a field that one side alone has fits where it %s', (_, extra) => {
  const more = { ...book, fields: [...book.fields, extra] };
  expect(modelMismatch([book], [more])).toBeNull();
  expect(modelMismatch([more], [book])).toBeNull();
});

it('null fits on one side alone where the other has a default for it', () => {
  const [open, strict] = [{ nullable: true }, { default: '' }].map((change) => ({ ...book, fields: [field('title', 'String', change), field('price', 'Decimal')] }));
  expect(modelMismatch([open as ReplicatedModel], [strict as ReplicatedModel])).toBeNull();
  expect(modelMismatch([strict as ReplicatedModel], [open as ReplicatedModel])).toBeNull();
});

const SAME = 'Bring both to the same version of prisma/schema.prisma';

it.each<[string, ReplicatedModel, string]>([
  [
    'a field that is missing',
    { ...book, fields: [field('title')] },
    'it lacks field Book.price, which must be written here. Give Book.price a constant default here or let it be null, or upgrade that replica',
  ],
  [
    'a field too many',
    { ...book, fields: [...book.fields, field('isbn')] },
    'it has field Book.isbn, which must be written and which this replica lacks. Give Book.isbn a constant default there or let it be null, or upgrade this replica',
  ],
  ['another type', { ...book, fields: [field('title'), field('price', 'Float')] }, `its field Book.price is Float, here it is Decimal. ${SAME}`],
  [
    'null',
    { ...book, fields: [field('title', 'String', { nullable: true }), field('price', 'Decimal')] },
    'its field Book.title may be null there, but not here. Give Book.title a constant default here or let it be null, or bring both to the same version of prisma/schema.prisma',
  ],
  ['a list', { ...book, fields: [field('title', 'String', { list: true }), field('price', 'Decimal')] }, `its field Book.title is String[], here it is String. ${SAME}`],
  ['another key', { ...book, key: field('id', 'BigInt') }, `the key of its model Book is id BigInt, here it is id Int. ${SAME}`],
])('%s is told', (_, theirs, problem) => {
  expect(modelMismatch([book], [theirs])).toBe(problem);
});
