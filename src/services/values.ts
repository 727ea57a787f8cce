/** Values between PostgreSQL's text, which is what replication keeps, and JSON, which is what the API shows. */
import { parse as parseArray } from 'postgres-array';

import type { ReplicatedField, ReplicatedModel } from '../replication/model.ts';
import type { Fields } from '../replication/version.ts';

/** A record's values as JSON holds them, its key among them. */
export function toJsonValues(model: ReplicatedModel, key: string, fields: Fields): Record<string, unknown> {
  const values: Record<string, unknown> = { [model.key.name]: scalar(model.key, key) };
  for (const field of model.fields) {
    const text = fields[field.name] ?? field.default ?? null;
    values[field.name] = text === null ? null : field.list ? parseArray(text, (item) => scalar(field, item)) : scalar(field, text);
  }
  return values;
}

/** Numbers that a JSON number may not hold exactly stay texts. */
function scalar(field: ReplicatedField, text: string): unknown {
  switch (field.type) {
    case 'Int':
      return Number(text);
    case 'Float':
      return Number.isFinite(Number(text)) ? Number(text) : text;
    case 'Boolean':
      return text === 'true' || text === 't';
    case 'Json':
      return JSON.parse(text) as unknown;
    case 'DateTime':
      return toInstant(text);
    default:
      return text;
  }
}

/** `2026-11-23 06:34:00.123+00` as ISO 8601; a date or time alone stays as it is. */
function toInstant(text: string): string {
  const match = /^(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)(?:\+00)?$/.exec(text);
  if (!match) return text;
  const [, date, time] = match;
  return `${date}T${time?.includes('.') ? time.replace(/\.(\d+)/, (_all, digits: string) => `.${digits.padEnd(3, '0')}`) : `${time}.000`}Z`;
}
