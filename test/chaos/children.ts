/** Everything that a run has started. Whatever way the run ends, none of it outlives it; nothing else is ever touched. */

const killers = new Set<() => void>();

/**
 * Has `kill` called when this process ends, for whatever reason but a kill -9 of its own.
 *
 * @returns Forgets it.
 */
export function onEnd(kill: () => void): () => void {
  if (killers.size === 0) process.once('exit', endAll);
  killers.add(kill);
  return () => killers.delete(kill);
}

function endAll(): void {
  for (const kill of killers) kill();
}

/** Sends a signal to a process of ours; one that is gone already is no error. */
export function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'ESRCH') throw error;
  }
}
