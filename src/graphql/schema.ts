/** The schema, put together from one file a concept. Building it touches no database. */
import type { GraphQLSchema } from 'graphql';

import { builder } from './builder.ts';
import './comparison.ts';
import './conflict.ts';
import './replica.ts';
import './scalars.ts';
import './sync.ts';
import './user.ts';

export const schema: GraphQLSchema = builder.toSchema();
