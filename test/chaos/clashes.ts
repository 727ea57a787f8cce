/** Addresses that are given to records of different replicas at once, which no database can refuse. */
import type { History } from './history.ts';
import type { Random } from './random.ts';
import type { Site } from './site.ts';

/** Gives an address to a record that is there, or to a new one. */
export type Give = (site: Site, random: Random, email: string, key: string | null) => Promise<void>;

export interface Clashes {
  /** Two replicas give one address to two records. */
  clash(site: Site, random: Random, keys: readonly string[]): Promise<void>;
  /** A record was made with an address. */
  made(key: string, email: string): void;
}

/** How many addresses are given out again, so that a third record may claim what two are at odds over. */
const REMEMBERED = 4;

/** @param occupy - Counts work at a site among what is waited for there. */
export function createClashes(sites: readonly Site[], history: History, give: Give, occupy: (site: Site, work: Promise<void>) => Promise<void>): Clashes {
  const recent: string[] = [];
  /** A record is given an address once, so that values tell which write is which. */
  const given = new Set<string>();

  function draw(random: Random): string {
    if (recent.length > 0 && random.chance(0.25)) return random.pick(recent);
    const email = history.address();
    recent.push(email);
    if (recent.length > REMEMBERED) recent.shift();
    return email;
  }

  return {
    made: (key, email) => void given.add(`${key} ${email}`),
    async clash(site, random, keys) {
      const email = draw(random);
      const other = random.pick(sites.filter((each) => each !== site));
      const taken: string[] = [];
      await Promise.all(
        [site, other].map((each) => {
          const free = keys.filter((key) => !taken.includes(key) && !given.has(`${key} ${email}`));
          const key = free.length === 0 || random.chance(0.2) ? null : random.pick(free);
          if (key !== null) {
            taken.push(key);
            given.add(`${key} ${email}`);
          }
          return each.closed ? null : occupy(each, give(each, random, email, key));
        }),
      );
    },
  };
}
