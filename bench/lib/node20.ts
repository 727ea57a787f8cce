/** What PostGraphile 5.1 asks of Node 22, for Node 20: without it every query fails inside. Loaded before it. */
interface Resolvers<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T | PromiseLike<T>) => void;
  readonly reject: (reason: unknown) => void;
}

function withResolvers<T>(this: PromiseConstructor): Resolvers<T> {
  let settle: Omit<Resolvers<T>, 'promise'> | undefined;
  const promise = new this<T>((resolve, reject) => (settle = { resolve, reject }));
  return { promise, ...(settle as Omit<Resolvers<T>, 'promise'>) };
}

if (!('withResolvers' in Promise)) Object.assign(Promise, { withResolvers });
