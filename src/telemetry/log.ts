/** The log: to stderr, as JSON for machines, or a line a message for a person at a terminal. */
import pino from 'pino';
import type { DestinationStream, Logger } from 'pino';

export type { Logger } from 'pino';

export interface LogOptions {
  /** The replica's name, in every line. */
  readonly replica: string;
  /** The least level that is written; `info` where not given. */
  readonly level?: pino.LevelWithSilent;
  /** True writes for a person, in colour; where not given, that is so when stderr is a terminal. */
  readonly pretty?: boolean;
  /** Where the lines go; stderr where not given. */
  readonly write?: (line: string) => void;
}

/** Makes a replica's logger. An error belongs under the key `err`. */
export function createLogger(options: LogOptions): Logger {
  const pretty = options.pretty ?? process.stderr.isTTY;
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const stream: DestinationStream = { write: pretty ? (line) => write(prettyLine(line)) : write };
  return pino({ level: options.level ?? 'info', base: { replica: options.replica }, timestamp: pino.stdTimeFunctions.isoTime }, stream);
}

const LEVELS: Readonly<Record<number, readonly [name: string, colour: number]>> = {
  10: ['trace', 90],
  20: ['debug', 90],
  30: ['info', 36],
  40: ['warn', 33],
  50: ['error', 31],
  60: ['fatal', 31],
};

function prettyLine(line: string): string {
  const { time, level, replica, msg, err, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const [name, colour] = LEVELS[Number(level)] ?? ['log', 36];
  const clock = typeof time === 'string' ? new Date(time).toTimeString().slice(0, 8) : '';
  const pairs = Object.entries(rest).map(([key, value]) => ` \x1b[90m${key}=\x1b[0m${printable(typeof value === 'string' ? value : JSON.stringify(value))}`);
  return `\x1b[90m${clock}\x1b[0m \x1b[1m${printable(text(replica))}\x1b[0m \x1b[${colour}m${name}\x1b[0m ${printable(text(msg))}${pairs.join('')}\n${stack(err)}`;
}

function stack(err: unknown): string {
  if (typeof err !== 'object' || err === null) return '';
  const { stack: frames, message } = err as Record<string, unknown>;
  const lines = text(frames ?? message).split('\n');
  return lines.map((each) => `    \x1b[90m${printable(each)}\x1b[0m\n`).join('');
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** What others wrote must not steer the terminal, nor look like a line of the log. */
function printable(value: string): string {
  return value.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (char) => (char === '\t' ? ' ' : `\\u${(char.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`));
}
