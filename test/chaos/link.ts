/** The way from one replica to another: TCP through a proxy of ours, which can be cut, slowed down, or made to break off in the middle of a body. */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { Transform } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Link {
  readonly from: string;
  readonly to: string;
  readonly url: string;
  cut(): void;
  /** Each piece is held for so long. */
  delay(ms: number): void;
  throttle(bytesPerSecond: number): void;
  /** Breaks off each connection once so many bytes have gone over it. */
  breakAfter(bytes: number): void;
  heal(): void;
  close(): Promise<void>;
}

interface Weather {
  readonly cut: boolean;
  readonly delayMs: number;
  readonly bytesPerSecond: number;
  readonly breakAfter: number;
}

const FINE: Weather = { cut: false, delayMs: 0, bytesPerSecond: Infinity, breakAfter: Infinity };

/** @param target - A port that answers for the receiver now, one of its gateways'; null where none does. */
export async function openLink(from: string, to: string, target: () => number | null): Promise<Link> {
  const ends = new Set<Socket>();
  let weather = FINE;

  function pass(near: Socket, far: Socket): void {
    let bytes = 0;
    for (const [end, other] of [[near, far], [far, near]] as const) {
      ends.add(end);
      end.setNoDelay(true).on('error', () => {}).on('close', () => {
        ends.delete(end);
        other.destroy();
      });
      const way = new Transform({
        highWaterMark: 16 * 1024,
        async transform(chunk: Buffer, _encoding, done) {
          bytes += chunk.length;
          if (bytes > weather.breakAfter) {
            near.resetAndDestroy();
            far.resetAndDestroy();
            return;
          }
          const ms = weather.delayMs + (1000 * chunk.length) / weather.bytesPerSecond;
          if (ms > 0) await sleep(ms);
          done(null, chunk);
        },
      });
      end.pipe(way).pipe(other);
    }
  }

  const server = createServer((near) => {
    const port = weather.cut ? null : target();
    if (port === null) near.on('error', () => {}).resetAndDestroy();
    else pass(near, connect(port, '127.0.0.1'));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const breakAll = (): void => {
    for (const end of ends) end.destroy();
  };
  return {
    from,
    to,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut() {
      weather = { ...FINE, cut: true };
      breakAll();
    },
    delay: (delayMs) => void (weather = { ...FINE, delayMs }),
    throttle: (bytesPerSecond) => void (weather = { ...FINE, bytesPerSecond }),
    breakAfter: (bytes) => void (weather = { ...FINE, breakAfter: bytes }),
    heal: () => void (weather = FINE),
    close() {
      breakAll();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
