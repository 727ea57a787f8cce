import { it } from 'vitest';
import { openReplicas } from '../support/replicas.ts';
import { readFeed } from '../../src/storage/feed.ts';
it('bench', async () => {
  const out: string[] = [];
  let t = performance.now();
  const lap = (w: string) => { out.push(`${w} ${Math.round(performance.now() - t)}`); t = performance.now(); };
  const r = await openReplicas('ab'); lap('open 2');
  await r.at('a').sql(`insert into things select n, 'some text '||n, 'another '||n from generate_series(1,20000) n`); lap('insert');
  await r.at('a').settle(); lap('settle 20000');
  for (let i = 0; i < 4; i++) { await readFeed(r.at('a').replica, i * 5000, 'b.x'); lap('feed 5000'); }
  await r.sync('a', 'b'); lap('sync 20000');
  await r.close(); lap('close');
  console.log(out.join('\n'));
});
