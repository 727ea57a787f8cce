/** What a process takes, as Linux counts it. */
import { readFileSync } from 'node:fs';

/** MiB that a process holds now, and the most that it held. */
export function memoryOf(pid: number): { readonly now: number; readonly peak: number } {
  const of = statusOf(pid);
  return { now: of('VmRSS'), peak: of('VmHWM') };
}

/** A clock tick of `/proc`, which Linux fixes at 100 a second. */
const TICK_MS = 10;

/** Milliseconds of processor time that a process has taken, all its threads together. */
export function processorTimeOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // After the name, which is in brackets and may hold anything: state is the first field, user and system time are the 12th and 13th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/** Looks every ten milliseconds at what processes hold by themselves, without the pages that they share, of which Linux keeps no peak. */
export function watchPrivateMemory(pids: readonly number[]): { /** @returns the most that one of them held, in MiB. */ stop(): number } {
  let most = 0;
  const look = (): void => {
    for (const pid of pids) {
      const of = statusOf(pid);
      most = Math.max(most, of('RssAnon') + of('RssFile'));
    }
  };
  look();
  const timer = setInterval(look, 10);
  return {
    stop() {
      clearInterval(timer);
      look();
      return most;
    },
  };
}

/** The fields of a process's status that count KiB, in MiB. */
function statusOf(pid: number): (field: string) => number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return (field) => Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? Number.NaN) / 1024;
}
