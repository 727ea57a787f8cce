/** Runs the commands from the build, which is made anew where the sources have changed since. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';

import { BUILD, digestOfBuild, digestOfSources } from './sources.js';

if (digestOfBuild() !== digestOfSources()) {
  process.stderr.write('compiling the sources …\n');
  // A process of its own: what the compiler needs is not kept by one that may run for months.
  const { status } = spawnSync(process.execPath, [fileURLToPath(new URL('build.js', import.meta.url))], { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) {
    process.stderr.write('The sources could not be compiled. The reason is above; where generated code is missing, npm run generate makes it.\n');
    process.exit(1);
  }
}

// What a batch leaves behind is cleared away once the heap has grown by so many percent, not when V8 finds that the machine has no more to spare: a database beside it can use the memory. As much is
// saved by --max-semi-space-size in package.json, which has to be there when the process starts.
setFlagsFromString('--heap-growing-percent=60');
// A function is compiled with little of what it calls: what is hot for a second, as a sync is, is compiled before that is over, and the processors are the database's as well.
setFlagsFromString('--max-inlined-bytecode-size-cumulative=120');
// Stack traces name the sources.
process.setSourceMapsEnabled(true);
await import(pathToFileURL(join(BUILD, 'cli.js')).href);
